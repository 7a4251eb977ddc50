"""The orbit: frames, their cameras and what is known about them; in memory and as the folder all rooms share.

The folder is a dataset as nerfstudio and instant-ngp read it (``transforms.json`` beside ``frames/000.png``), with
mv3d's own facts under the one key ``"mv3d"``. Frames in memory are float32 in [0, 1], sRGB, straight alpha.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mv3d.cameras import Camera, from_nerfstudio, to_nerfstudio
from mv3d.errors import Mv3dError
from mv3d.files import whole_file, whole_folder

Frames = NDArray[np.float32]

FORMAT_VERSION = 1
WHITE = (1.0, 1.0, 1.0)
_MAX_FRAMES = 1000
_SHARED_KEYS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "k3", "k4", "p1", "p2")


@dataclass(frozen=True)
class Facts:
    """What is known about an orbit besides its frames and cameras; every field is optional."""

    input_index: int | None = None
    """Which frame is (or shows) the picture the others were made from."""
    source: str | None = None
    """Object identifier or picture name."""
    licence: str | None = None
    attribution: str | None = None
    made_by: str | None = None
    """Renderer or model, with its version."""
    seed: int | None = None
    command: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent, by stage."""
    extra: dict[str, str | float | int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Orbit:
    """Views of one object: ``frames`` (N, height, width, 4) RGBA and one camera each."""

    frames: Frames
    cameras: tuple[Camera, ...]
    facts: Facts = Facts()

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[-1] != 4 or self.frames.dtype != np.float32:
            raise ValueError(f"frames must be float32 (N, H, W, 4), got {self.frames.dtype} {self.frames.shape}")
        if len(self.frames) != len(self.cameras) or not self.cameras:
            raise ValueError(f"{len(self.frames)} frames and {len(self.cameras)} cameras")
        size = (self.frames.shape[2], self.frames.shape[1])
        for k, camera in enumerate(self.cameras):
            if (camera.width_px, camera.height_px) != size:
                raise ValueError(f"camera {k} is for {camera.width_px}x{camera.height_px}, frames are {size[0]}x{size[1]}")

    def __len__(self) -> int:
        return len(self.cameras)

    def on(self, background: Sequence[float] = WHITE) -> Frames:
        """The frames composited on a plain background, (N, height, width, 3)."""
        return composite(self.frames, background)

    def select(self, indices: Sequence[int]) -> Orbit:
        """The orbit of some of the views, in the order given."""
        given = self.facts.input_index
        input_index = list(indices).index(given) if given in indices else None
        facts = replace(self.facts, input_index=input_index)
        return Orbit(self.frames[list(indices)], tuple(self.cameras[k] for k in indices), facts)

    def resized(self, size_px: int) -> Orbit:
        """The orbit resampled to a square size (area average, colours weighted by alpha)."""
        frames = np.stack([resize(frame, size_px, size_px) for frame in self.frames])
        return Orbit(frames, tuple(camera.resized(size_px, size_px) for camera in self.cameras), self.facts)


def composite(rgba: Frames, background: Sequence[float] = WHITE) -> Frames:
    """Put straight-alpha pixels (..., 4) on a plain background, in sRGB; returns (..., 3)."""
    alpha = rgba[..., 3:]
    return rgba[..., :3] * alpha + np.asarray(background, dtype=np.float32) * (1 - alpha)


def resize(rgba: Frames, width_px: int, height_px: int) -> Frames:
    """Resample (H, W, 4) with an antialiased filter; hidden colour does not bleed through transparent pixels."""
    premultiplied = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)
    channels = [
        np.asarray(Image.fromarray(premultiplied[..., c]).resize((width_px, height_px), Image.Resampling.BOX))
        if width_px <= rgba.shape[1]
        else np.asarray(Image.fromarray(premultiplied[..., c]).resize((width_px, height_px), Image.Resampling.BICUBIC))
        for c in range(4)
    ]
    out = np.clip(np.stack(channels, axis=-1), 0, 1)
    alpha = out[..., 3:]
    return np.concatenate([np.clip(out[..., :3] / np.maximum(alpha, 1e-6), 0, 1), alpha], axis=-1).astype(np.float32)


# -------------------------------------------------------------------------------------------------
# The folder.


def save_orbit(orbit: Orbit, folder: Path, *, overwrite: bool = False, for_people: bool = True) -> None:
    """Write the orbit folder; ``for_people`` adds ``orbit.mp4`` and ``sheet.png``.

    Raises:
        Mv3dError: if the folder exists and ``overwrite`` is not set.
    """
    with whole_folder(folder, overwrite=overwrite) as partial:
        (partial / "frames").mkdir()
        for k, frame in enumerate(orbit.frames):
            Image.fromarray(to_uint8(frame), "RGBA").save(partial / _frame_path(k))
        text = json.dumps(_transforms(orbit), indent=1)
        (partial / "transforms.json").write_text(text + "\n")
        if for_people:
            save_video(orbit, partial / "orbit.mp4")
            save_sheet(orbit, partial / "sheet.png")


def load_orbit(folder: Path) -> Orbit:
    """Read an orbit folder, ours or any RGB(A) dataset with a ``transforms.json`` of pinhole cameras.

    Raises:
        Mv3dError: if it is missing, damaged, or not what the format says; the message names the file.
    """
    path = folder / "transforms.json"
    try:
        transforms = json.loads(path.read_text())
        entries = transforms["frames"]
    except FileNotFoundError:
        raise Mv3dError(f"{folder} is no orbit folder: it has no transforms.json") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise Mv3dError(f"{path} cannot be read as an orbit: {error}") from error
    if not 1 <= len(entries) <= _MAX_FRAMES:
        raise Mv3dError(f"{path} lists {len(entries)} frames; 1 to {_MAX_FRAMES} are supported")
    shared = {key: transforms[key] for key in _SHARED_KEYS if key in transforms}
    frames, cameras = [], []
    for entry in entries:
        frame = _load_frame(folder, entry)
        if frames and frame.shape != frames[0].shape:
            raise Mv3dError(f"{folder}: {entry['file_path']} has another size than the first frame")
        size = {"w": frame.shape[1], "h": frame.shape[0]}
        try:
            camera = from_nerfstudio(size | shared | entry)
        except (ValueError, TypeError) as error:
            raise Mv3dError(f"{path}: {entry['file_path']}: {error}") from error
        if (camera.width_px, camera.height_px) != (size["w"], size["h"]):
            camera = camera.resized(size["w"], size["h"])
        frames.append(frame)
        cameras.append(camera)
    return Orbit(np.stack(frames), tuple(cameras), _load_facts(transforms.get("mv3d", {}), path))


def _frame_path(k: int) -> str:
    return f"frames/{k:03d}.png"


def _transforms(orbit: Orbit) -> dict:
    cameras = [to_nerfstudio(camera) for camera in orbit.cameras]
    shared = {k: v for k, v in cameras[0].items() if k != "transform_matrix" and all(c[k] == v for c in cameras)}
    entries = [
        {"file_path": _frame_path(k)} | {key: value for key, value in camera.items() if key not in shared}
        for k, camera in enumerate(cameras)
    ]
    views = [
        {"azimuth_deg": round(c.azimuth_deg, 6), "elevation_deg": round(c.elevation_deg, 6), "radius": round(c.radius, 6)}
        for c in orbit.cameras
    ]
    known = {key: value for key, value in asdict(orbit.facts).items() if value not in (None, {})}
    return {
        "camera_model": "OPENCV",
        "orientation_override": "none",
        **shared,
        "frames": entries,
        "mv3d": {"format_version": FORMAT_VERSION, **known, "views": views},
    }


def _load_frame(folder: Path, entry: dict) -> Frames:
    name = entry.get("file_path")
    if not isinstance(name, str):
        raise Mv3dError(f"{folder}/transforms.json has a frame without file_path")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise Mv3dError(f"{folder}/transforms.json points outside its folder: {name}")
    if not path.suffix:  # NeRF-synthetic leaves the suffix out
        path = path.with_suffix(".png")
    try:
        with Image.open(path) as picture:
            return from_uint8(np.asarray(picture.convert("RGBA")))
    except FileNotFoundError:
        raise Mv3dError(f"{path} is missing") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise Mv3dError(f"{path} is no readable picture: {error}") from error


def _load_facts(known: dict, path: Path) -> Facts:
    if known.get("format_version", FORMAT_VERSION) > FORMAT_VERSION:
        raise Mv3dError(f"{path} has format version {known['format_version']}; this mv3d reads up to {FORMAT_VERSION}")
    return Facts(**{f.name: known[f.name] for f in fields(Facts) if f.name in known})


def to_uint8(pixels: Frames) -> NDArray[np.uint8]:
    """Quantise [0, 1] to [0, 255] by rounding."""
    return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def from_uint8(pixels: NDArray[np.uint8]) -> Frames:
    """Invert `to_uint8`."""
    return pixels.astype(np.float32) / 255


# -------------------------------------------------------------------------------------------------
# For people.


def save_video(orbit: Orbit, path: Path, *, seconds: float = 3.0, loops: int = 2) -> None:
    """Write an H.264 video of the turntable on white, at least 256 px so that players show it well."""
    import imageio_ffmpeg

    scale = max(1, -(-256 // orbit.frames.shape[1]))
    frames = to_uint8(orbit.on()).repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = frames.shape[1] // 2 * 2, frames.shape[2] // 2 * 2  # H.264 wants even sides
    with whole_file(path) as partial:
        writer = imageio_ffmpeg.write_frames(
            str(partial), (width, height), fps=len(orbit) / seconds, macro_block_size=2, quality=8, ffmpeg_log_level="error"
        )
        writer.send(None)
        for _ in range(loops):
            for frame in frames:
                writer.send(np.ascontiguousarray(frame[:height, :width]))
        writer.close()


def save_sheet(orbit: Orbit, path: Path, *, columns: int = 7) -> None:
    """Write all views on white as one contact sheet, row by row."""
    with whole_file(path) as partial:
        Image.fromarray(make_sheet(to_uint8(orbit.on()), columns)).save(partial)


def make_sheet(pictures: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Tile (N, H, W, 3) pictures into one, ``columns`` to a row, the rest white."""
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    padded = np.full((rows * columns, height, width, 3), 255, dtype=np.uint8)
    padded[:count] = pictures
    return padded.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)

"""The orbit: frames, their cameras and what is known about them; in memory and as the folder all rooms share.

The folder is a dataset as nerfstudio and instant-ngp read it (``transforms.json`` beside ``frames/000.png``), with
mv3d's own facts under the one key ``"mv3d"``. Frames in memory are float32 in [0, 1], sRGB, straight alpha.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from mv3d.cameras import Camera
from mv3d.conventions import to_nerfstudio
from mv3d.errors import Mv3dError
from mv3d.files import check_free, whole_file, whole_folder
from mv3d.frame_files import load_frame, save_frames
from mv3d.pixels import WHITE, Frames, composite, resize, to_uint8
from mv3d.transforms import CLIP_FILE, load_views
from mv3d.video import write_video

FORMAT_VERSION = 1
PICTURE_FILE = "picture.png"
_SECONDS, _SMOOTH_FPS = 3.0, 30.0  # of a video whose pace nobody tells


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

    frames: Float32[np.ndarray, "N H W 4"]
    cameras: tuple[Camera, ...]
    facts: Facts = Facts()
    picture: Float32[np.ndarray, "S S 4"] | None = None
    """(S, S, 4), what the input view shows, at the resolution of the picture that it was made from."""

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[-1] != 4 or self.frames.dtype != np.float32:
            raise ValueError(f"frames must be float32 (N, H, W, 4), got {self.frames.dtype} {self.frames.shape}")
        if len(self.frames) != len(self.cameras) or not self.cameras:
            raise ValueError(f"{len(self.frames)} frames and {len(self.cameras)} cameras")
        size = (self.frames.shape[2], self.frames.shape[1])
        for k, camera in enumerate(self.cameras):
            if (camera.width_px, camera.height_px) != size:
                raise ValueError(f"camera {k} is for {camera.width_px}x{camera.height_px}, frames are {size}")
        if self.picture is not None and (self.picture.shape[0], size[0]) != (self.picture.shape[1], size[1]):
            raise ValueError(f"a picture of {self.picture.shape} belongs to square views, not to {size}")

    def __len__(self) -> int:
        return len(self.cameras)

    def on(self, background: Sequence[float] = WHITE) -> Float32[np.ndarray, "N H W 3"]:
        """The frames composited on a plain background, (N, height, width, 3)."""
        return composite(self.frames, background)

    def select(self, indices: Sequence[int]) -> Orbit:
        """The orbit of some of the views, in the order given."""
        given = self.facts.input_index
        input_index = next((new for new, old in enumerate(indices) if old == given), None)
        facts = replace(self.facts, input_index=input_index)
        picture = None if input_index is None else self.picture
        return Orbit(self.frames[list(indices)], tuple(self.cameras[k] for k in indices), facts, picture)

    def resized(self, size_px: int) -> Orbit:
        """The orbit resampled to a square size.

        Raises:
            Mv3dError: if its views are not square.
        """
        height_px, width_px = self.frames.shape[1:3]
        if height_px != width_px:
            raise Mv3dError(f"views of {width_px}x{height_px} px are not square; pad or render them so")
        frames = np.stack([resize(frame, size_px, size_px) for frame in self.frames])
        cameras = tuple(camera.resized(size_px, size_px) for camera in self.cameras)
        return Orbit(frames, cameras, self.facts, self.picture)


# -------------------------------------------------------------------------------------------------
# The folder.


def save_orbit(
    orbit: Orbit,
    folder: Path,
    *,
    overwrite: bool = False,
    for_people: bool = True,
    frames_per_second: float | None = None,
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Write the orbit folder, with ``picture.png`` where it has a picture.

    ``for_people`` adds ``orbit.mp4``, as fast as `save_video` says, and ``sheet.png``, ``more`` files by relative path.

    Raises:
        Mv3dError: if the folder exists and ``overwrite`` is not set, or is something else than an orbit folder.
    """
    check_replaceable(folder, overwrite=overwrite)
    with whole_folder(folder, overwrite=overwrite) as partial:
        names = save_frames(orbit.frames, partial)
        if orbit.picture is not None:
            Image.fromarray(to_uint8(orbit.picture), "RGBA").save(partial / PICTURE_FILE)
        text = json.dumps(describe_orbit(orbit, names), indent=1)
        (partial / "transforms.json").write_text(text + "\n")
        for name, data in (more or {}).items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(data)
        if for_people:
            save_video(orbit.frames, partial / "orbit.mp4", frames_per_second=frames_per_second)
            save_sheet(orbit.frames, partial / "sheet.png")


def check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Raise `Mv3dError` if an orbit cannot be saved as ``folder``; ``overwrite`` is for orbits and clips only."""
    check_free(folder, overwrite=overwrite)
    if folder.exists() and not is_made(folder):
        raise Mv3dError(f"{folder} is no orbit folder, so it is not overwritten; choose another name")


def is_made(folder: Path) -> bool:
    """Whether a folder is an orbit's, or a clip's (`mv3d.clip`)."""
    return any((folder / name).exists() for name in ("transforms.json", CLIP_FILE))


def load_orbit(folder: Path, *, exact: bool = False) -> Orbit:
    """Read an orbit folder, ours or any dataset that `mv3d.transforms` reads; ``exact`` as of `load_frame`.

    Raises:
        Mv3dError: if it is missing, damaged, or not what the format says; the message names the file.
    """
    views = load_views(folder, exact=exact)
    facts = _load_facts(views.known, views.path)
    return Orbit(views.frames, views.cameras, facts, _load_own(folder / PICTURE_FILE, views.frames, facts))


def _load_own(path: Path, frames: Frames, facts: Facts) -> Frames | None:
    """The picture that an orbit was made from, as its input view shows it, if it is there."""
    if facts.input_index is None or not path.exists():
        return None
    picture = load_frame(path)
    if picture.shape[0] != picture.shape[1] or frames.shape[1] != frames.shape[2]:
        raise Mv3dError(f"{path} is not square as the views of a picture are; delete it to do without")
    return picture


def describe_orbit(orbit: Orbit, names: Sequence[str]) -> dict:
    """Describe the orbit as in a transforms.json; ``names`` are the frames' relative paths."""
    cameras = [to_nerfstudio(camera) for camera in orbit.cameras]
    shared = {k: v for k, v in cameras[0].items() if k != "transform_matrix" and all(c[k] == v for c in cameras)}
    entries = [
        {"file_path": name} | {key: value for key, value in camera.items() if key not in shared}
        for name, camera in zip(names, cameras, strict=True)
    ]
    views = [
        {key: round(getattr(camera, key), 6) for key in ("azimuth_deg", "elevation_deg", "radius")}
        for camera in orbit.cameras
    ]
    known = {key: value for key, value in asdict(orbit.facts).items() if value not in (None, {})}
    return {
        "camera_model": "OPENCV",
        "orientation_override": "none",
        **shared,
        "frames": entries,
        "mv3d": {"format_version": FORMAT_VERSION, **known, "views": views},
    }


def _load_facts(known: dict, path: Path) -> Facts:
    version = known.get("format_version", FORMAT_VERSION) if isinstance(known, dict) else None
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise Mv3dError(f'{path} has "mv3d" facts of format version {version}; this mv3d reads up to {FORMAT_VERSION}')
    return Facts(**{f.name: known[f.name] for f in fields(Facts) if f.name in known})


# -------------------------------------------------------------------------------------------------
# For people.


def save_video(views: Float[np.ndarray, "N H W 4"], path: Path, *, frames_per_second: float | None = None) -> None:
    """Write an H.264 video of views (N, H, W, 4) on white, a frame each, at least 256 px, which players show well.

    It takes 3 seconds if nothing else is said, or longer where that were over 30 frames a second.
    """
    scale = max(1, -(-256 // views.shape[1]))
    frames = to_uint8(composite(views)).repeat(scale, axis=1).repeat(scale, axis=2)
    write_video(frames, path, frames_per_second=frames_per_second or min(len(views) / _SECONDS, _SMOOTH_FPS))


def save_sheet(views: Float[np.ndarray, "N H W 4"], path: Path, *, columns: int = 7) -> None:
    """Write all frames (N, H, W, 4) on white as one contact sheet, row by row."""
    with whole_file(path) as partial:
        Image.fromarray(make_sheet(to_uint8(composite(views)), columns)).save(partial)


def make_sheet(pictures: UInt8[np.ndarray, "N H W 3"], columns: int) -> UInt8[np.ndarray, "rows_px columns_px 3"]:
    """Tile (N, H, W, 3) pictures into one, ``columns`` to a row, the rest white."""
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    padded = np.full((rows * columns, height, width, 3), 255, dtype=np.uint8)
    padded[:count] = pictures
    return padded.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)

"""Reading posed pictures: a folder with a transforms.json, ours or nerfstudio's, instant-ngp's, NeRF-synthetic's.

Everything that a stranger's dataset may do wrong is met here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mv3d.cameras import Camera
from mv3d.conventions import from_nerfstudio
from mv3d.errors import Mv3dError
from mv3d.files import check_readable_file
from mv3d.frame_files import load_frame
from mv3d.pixels import Frames

CLIP_FILE = "clip.json"
"""Stands in a clip's folder in place of transforms.json, see `mv3d.clip`."""

_NAMES = ("transforms.json", "transforms_train.json")  # the second is NeRF-synthetic's
_SQUARE = {"w": 512, "h": 512}  # NeRF-synthetic's do not say; its lens is told by an angle
_MAX_FRAMES = 1000
_MAX_BYTES = 8 << 30  # of all frames in memory, 16 bytes a pixel
_SUFFIXES = (".png", ".jpg", ".jpeg")  # tried in this order where a frame's name has none


@dataclass(frozen=True, eq=False)
class PosedPictures:
    """What a folder holds: frames (N, H, W, 4), a camera each, and what stands under the key ``"mv3d"``."""

    frames: Frames
    cameras: tuple[Camera, ...]
    known: Any
    path: Path
    """The file with the cameras."""


def load_views(folder: Path, *, exact: bool = False) -> PosedPictures:
    """Read any RGB(A) dataset of pinhole cameras; of one in NeRF-synthetic's layout the training views.

    ``exact`` is that of `mv3d.frame_files.load_frame`.

    Raises:
        Mv3dError: if it is missing, damaged, too large, or not what the format says; the message names the file.
    """
    path = next((folder / name for name in _NAMES if (folder / name).exists()), folder / _NAMES[0])
    transforms = _load_transforms(path)
    entries = transforms["frames"]
    shared = {key: value for key, value in transforms.items() if key not in ("frames", "mv3d")}
    frames: list[Frames] = []
    cameras = []
    for entry in entries:
        frame = load_frame(_path_of(path, entry), exact=exact)
        if not frames:
            _check_memory(path, len(entries), frame)
        elif frame.shape != frames[0].shape:
            raise Mv3dError(
                f"{folder}: {entry['file_path']} has another size than the first frame, {_size_of(frame)} and not "
                f"{_size_of(frames[0])}; bring all to one size"
            )
        height_px, width_px, _ = frame.shape
        try:
            camera = from_nerfstudio({"w": width_px, "h": height_px} | shared | entry)
            cameras.append(camera.resized(width_px, height_px))
        except (ValueError, TypeError, ArithmeticError) as error:
            raise Mv3dError(f"{path}: {entry['file_path']}: {error}") from error
        frames.append(frame)
    return PosedPictures(np.stack(frames), tuple(cameras), transforms.get("mv3d", {}), path)


def load_cameras(path: Path) -> tuple[tuple[Camera, ...], Any]:
    """The cameras of a transforms.json, whether or not its pictures are there, and what stands under ``"mv3d"``.

    Where it tells no size of its pictures, they are square and of 512 px.

    Raises:
        Mv3dError: as `load_views`.
    """
    transforms = _load_transforms(path)
    shared = {key: value for key, value in transforms.items() if key not in ("frames", "mv3d")}
    cameras = []
    for number, entry in enumerate(transforms["frames"]):
        try:
            cameras.append(from_nerfstudio(_SQUARE | shared | entry))
        except (ValueError, TypeError, ArithmeticError) as error:
            raise Mv3dError(f"{path}: camera {number}: {error}") from error
    return tuple(cameras), transforms.get("mv3d", {})


def _load_transforms(path: Path) -> dict:
    check_readable_file(path)
    try:
        transforms = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        if (path.parent / CLIP_FILE).is_file():
            raise Mv3dError(
                f"{path.parent} is a clip, no orbit: its model was told no cameras, so nobody knows where its frames "
                "were seen from; make an orbit by a model of orbits"
            ) from None
        raise Mv3dError(f"{path.parent} is no orbit folder: it has no transforms.json") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Mv3dError(f"{path} cannot be read: {error}") from error
    entries = transforms.get("frames") if isinstance(transforms, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Mv3dError(f"{path} has no list of frames")
    if not 1 <= len(entries) <= _MAX_FRAMES:
        raise Mv3dError(
            f"{path} lists {len(entries)} frames; 1 to {_MAX_FRAMES} are supported: keep some, evenly spread"
        )
    return transforms


def _check_memory(path: Path, count: int, first: Frames) -> None:
    if count * first.nbytes > _MAX_BYTES:
        raise Mv3dError(
            f"{path}: {count} frames of {_size_of(first)} take {count * first.nbytes / 2**30:.0f} GiB of memory, over "
            f"{_MAX_BYTES >> 30}; scale them down or keep fewer"
        )


def _path_of(transforms_path: Path, entry: dict) -> Path:
    folder = transforms_path.parent
    name = entry.get("file_path")
    if not isinstance(name, str):
        raise Mv3dError(f"{transforms_path} has a frame without file_path")
    try:
        path = _find_frame(folder, name)
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # the last for links that lead in a circle
        raise Mv3dError(f"{transforms_path} has a frame of an impossible name {name!r}: {error}") from error
    if not is_inside:
        raise Mv3dError(f"{transforms_path} points outside its folder: {name}")
    return path


def _find_frame(folder: Path, name: str) -> Path:
    """The picture of a frame, whose name may lack the suffix (and hold dots all the same, as in ``./train/r_0.5``)."""
    path = folder / name
    if path.suffix.lower() in _SUFFIXES or path.is_file() or not path.name:
        return path
    guesses = [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
    return next((guess for guess in guesses if guess.is_file()), path if path.suffix else guesses[0])


def _size_of(frame: Frames) -> str:
    return f"{frame.shape[1]}x{frame.shape[0]}"

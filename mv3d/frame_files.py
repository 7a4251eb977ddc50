"""Frames in picture files, as they are: no turning, no resampling, no colour management, eight bits a channel.

A user's photo is another matter, see `mv3d.image`. Pillow makes eight bits of sixteen, RGB of CMYK and one frame of an
animation without a word.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mv3d.errors import Mv3dError
from mv3d.files import check_readable_file
from mv3d.pixels import Frames, from_uint8, to_uint8

_EXACT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # eight bits or fewer, made RGBA without loss
_ORIENTATION_TAG = 0x0112


def load_frame(path: Path, *, exact: bool = False) -> Frames:
    """Read one picture as float32 (H, W, 4), sRGB, straight alpha, opaque if it has none.

    With ``exact``, what would change pixels without a trace is refused too, since it changes a score.

    Raises:
        Mv3dError: if it is missing, damaged, or of more than eight bits a channel; with ``exact``, if it is animated,
            turned by its EXIF tag or neither grey nor RGB.
    """
    check_readable_file(path)
    try:
        with Image.open(path) as picture:
            _check(picture, path, exact=exact)
            return from_uint8(np.asarray(picture.convert("RGBA")))
    except FileNotFoundError:
        raise Mv3dError(f"{path} is missing") from None
    except Mv3dError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Mv3dError(f"{path} is no readable picture: {error}; write it again as PNG") from error


def save_frames(frames: Frames, folder: Path) -> list[str]:
    """Write frames (N, H, W, 4) to ``frames/000.png …`` in a folder that is there; returns these names."""
    (folder / "frames").mkdir()
    names = [f"frames/{k:03d}.png" for k in range(len(frames))]
    for frame, name in zip(frames, names, strict=True):
        Image.fromarray(to_uint8(frame), "RGBA").save(folder / name)
    return names


def frame_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header.

    Raises:
        Mv3dError: if it is no readable picture.
    """
    check_readable_file(path)
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Mv3dError(f"{path} is no readable picture: {error}; write it again as PNG") from error


def _check(picture: Image.Image, path: Path, *, exact: bool) -> None:
    if picture.mode.startswith(("I", "F")) or _is_deep_png(path):
        raise Mv3dError(f"{path} has 16 bits a channel or more, or floats; convert it to 8-bit sRGB first")
    if not exact:
        return
    if getattr(picture, "n_frames", 1) > 1:
        raise Mv3dError(f"{path} is animated ({picture.n_frames} frames); give one picture a view")  # pyright: ignore[reportAttributeAccessIssue]
    if picture.mode not in _EXACT_MODES:
        raise Mv3dError(f"{path} is of mode {picture.mode}; convert it to 8-bit sRGB, with or without alpha, first")
    if picture.getexif().get(_ORIENTATION_TAG, 1) != 1:
        raise Mv3dError(f"{path} is turned by its EXIF tag; save it upright")


def _is_deep_png(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(25)
    return header[:8] == b"\x89PNG\r\n\x1a\n" and len(header) == 25 and header[24] == 16

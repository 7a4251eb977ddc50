"""Frames read strictly: what would be changed without a trace while it is read is refused, by name.

Pillow makes eight bits of sixteen, RGB of CMYK and one frame of an animation without a word; each changes a score.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from mv3d.errors import Mv3dError
from mv3d.files import check_readable_file
from mv3d.orbit import Frames, from_uint8

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".mov", ".mkv"})
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # eight bits or fewer, made RGBA without loss
_ORIENTATION_TAG = 0x0112
_MAX_VIDEO_FRAMES = 1000


def load_picture(path: Path) -> Frames:
    """Read one picture as float32 (H, W, 4), sRGB, straight alpha.

    Raises:
        Mv3dError: if it is missing, damaged, animated, turned by its EXIF tag, or not of eight bits a channel.
    """
    check_readable_file(path)
    try:
        with Image.open(path) as picture:
            _check(picture, path)
            return from_uint8(np.asarray(picture.convert("RGBA")))
    except FileNotFoundError:
        raise Mv3dError(f"{path} is missing") from None
    except Mv3dError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Mv3dError(f"{path} is no readable picture: {error}; write it again as PNG") from error


def picture_size(path: Path) -> tuple[int, int]:
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


def load_video(path: Path) -> Frames:
    """Read all frames of a video as (N, H, W, 4), opaque.

    Raises:
        Mv3dError: if it cannot be decoded or is too long.
    """
    import imageio_ffmpeg

    check_readable_file(path)
    limit = ["-frames:v", str(_MAX_VIDEO_FRAMES + 1)]
    with tempfile.TemporaryDirectory(prefix="mv3d-video-") as folder:
        # Passed through: a video of 21 frames gives 21 views, whatever rate it claims.
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-fps_mode", "passthrough", *limit]
        done = subprocess.run([*command, f"{folder}/%05d.png"], capture_output=True, check=False)
        pictures = sorted(Path(folder).iterdir())
        if done.returncode or not pictures:
            raise Mv3dError(f"{path} is no readable video; give its frames as pictures")
        if len(pictures) > _MAX_VIDEO_FRAMES:
            raise Mv3dError(f"{path} has more than {_MAX_VIDEO_FRAMES} frames; cut it to the views of one object")
        return np.stack([load_picture(picture) for picture in pictures])


def series_of(paths: list[Path]) -> list[Path]:
    """Order numbered pictures of one series (000.png, view_1.jpg, ...) by their number.

    Raises:
        Mv3dError: if they are of several series, not numbered, or a number is missing.
    """
    numbered: dict[int, Path] = {}
    prefix = None
    for path in paths:
        match = re.fullmatch(r"(.*?)(\d+)", path.stem)
        if match is None:
            raise Mv3dError(
                f"{path} has no number in its name; views are 000.png, 001.png and so on, alone in a folder"
            )
        if prefix is not None and match[1] != prefix:
            raise Mv3dError(f"{path.parent} mixes {prefix}* and {match[1]}*; keep one numbered series of views in it")
        prefix = match[1]
        number = int(match[2])
        if number in numbered:
            raise Mv3dError(f"{path.parent} has two views of number {number}: {numbered[number].name} and {path.name}")
        numbered[number] = path
    first, last = min(numbered), max(numbered)
    missing = [number for number in range(first, last + 1) if number not in numbered]
    if missing or first > 1:
        gap = missing[0] if missing else 0
        raise Mv3dError(f"{paths[0].parent} has no view {gap}: it holds {len(numbered)} numbered {first} to {last}")
    return [numbered[number] for number in sorted(numbered)]


def _check(picture: Image.Image, path: Path) -> None:
    if getattr(picture, "n_frames", 1) > 1:
        raise Mv3dError(f"{path} is animated ({picture.n_frames} frames); give one picture a view")  # pyright: ignore[reportAttributeAccessIssue]
    bits = 16 if picture.mode.startswith("I") or _is_deep_png(path) else 8
    if picture.mode not in _MODES or bits > 8:
        kind = f"{bits} bits a channel, mode {picture.mode}" if bits > 8 else f"of mode {picture.mode}"
        raise Mv3dError(f"{path} is {kind}; scored are 8-bit sRGB pictures with or without alpha: convert it first")
    if picture.getexif().get(_ORIENTATION_TAG, 1) != 1:
        raise Mv3dError(f"{path} is turned by its EXIF tag; save it upright")


def _is_deep_png(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(25)
    return header[:8] == b"\x89PNG\r\n\x1a\n" and len(header) == 25 and header[24] == 16

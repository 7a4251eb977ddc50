"""Views as videos and as series of numbered pictures."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from mv3d.errors import Mv3dError
from mv3d.files import check_readable_file
from mv3d.frame_files import load_frame
from mv3d.pixels import Frames

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".mov", ".mkv"})
_MAX_VIDEO_FRAMES = 1000


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
        return np.stack([load_frame(picture, exact=True) for picture in pictures])


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

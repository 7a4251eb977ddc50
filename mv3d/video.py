"""Videos for people: H.264, as all players and pages show it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mv3d.files import whole_file


def write_video(
    pictures: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    path: Path,
    *,
    frames_per_second: float,
    quality: float = 8.0,
) -> None:
    """Write pictures (N, H, W, 3), sRGB, as an .mp4, a frame each; an odd last row or column is left out.

    ``quality`` is imageio's, of 0 to 10. The file's index stands first, so that a page plays it while it loads.
    """
    import imageio_ffmpeg

    height, width = (side // 2 * 2 for side in pictures[0].shape[:2])  # H.264 wants even sides
    rate: Any = frames_per_second  # annotated int there, but fractions work
    with whole_file(path) as partial:
        writer = imageio_ffmpeg.write_frames(
            str(partial),
            (width, height),
            fps=rate,
            macro_block_size=2,
            quality=quality,
            ffmpeg_log_level="error",
            output_params=["-movflags", "+faststart"],
        )
        with closing(writer):
            writer.send(None)
            for picture in pictures:
                writer.send(np.ascontiguousarray(picture[:height, :width]))

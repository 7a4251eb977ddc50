"""Pictures and videos of predictions beside the truth, small enough to stand inside a page."""

from __future__ import annotations

import base64
import tempfile
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mv3d.orbit import Frames, resize, to_uint8

_COLUMNS = 7
_CELL_PX = 80
_VIDEO_PX = 144
_WEBP_QUALITY = 62
_TURN_SECONDS = 3.0
_FULL_ERROR = 0.5
_ERROR_COLOUR = np.array([0.72, 0.07, 0.09])


def make_sheet(predicted: Frames, truth: Frames, start: int) -> str:
    """Rows of truth, prediction and error on white, evenly spaced views from ``start`` on: a data URI (WebP).

    The error is the mean absolute difference of the channels: white is none, full red one half or more.
    """
    count = min(_COLUMNS, len(truth))
    views = [(start + round(k * len(truth) / count)) % len(truth) for k in range(count)]
    true_row, pred_row = (np.stack([fit(pictures[k], _CELL_PX) for k in views]) for pictures in (truth, predicted))
    error = np.abs(pred_row - true_row).mean(axis=-1, keepdims=True).clip(0, _FULL_ERROR) / _FULL_ERROR
    error_row = 1 - error * (1 - _ERROR_COLOUR)
    rows = [np.concatenate(list(row), axis=1) for row in (true_row, pred_row, error_row)]
    return _picture_uri(to_uint8(np.concatenate(rows).astype(np.float32)))


def make_turntable(predicted: Frames, truth: Frames, start: int) -> str:
    """A looping video of truth (left) and prediction (right), one turn: a data URI (MP4, H.264)."""
    import imageio_ffmpeg

    order = [(start + k) % len(truth) for k in range(len(truth))]
    frames = [np.concatenate([fit(p[k], _VIDEO_PX) for p in (truth, predicted)], axis=1) for k in order]
    height, width = frames[0].shape[0] // 2 * 2, frames[0].shape[1] // 2 * 2  # H.264 wants even sides
    rate: Any = len(order) / _TURN_SECONDS  # annotated int there, but fractions work
    with tempfile.TemporaryDirectory(prefix="mv3d-video-") as folder:
        path = Path(folder) / "turn.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(path),
            (width, height),
            fps=rate,
            macro_block_size=2,
            quality=6,
            ffmpeg_log_level="error",
            output_params=["-movflags", "+faststart"],
        )
        with closing(writer):
            writer.send(None)
            for frame in frames:
                writer.send(np.ascontiguousarray(to_uint8(frame)[:height, :width]))
        return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def fit(picture: Frames, side_px: int) -> Frames:
    """Resample a picture (H, W, 3) to a height."""
    height, width = picture.shape[:2]
    opaque = np.concatenate([picture, np.ones_like(picture[..., :1])], axis=-1)
    return resize(opaque, round(side_px * width / height), side_px)[..., :3]


def _picture_uri(pixels: NDArray[np.uint8]) -> str:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=_WEBP_QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()

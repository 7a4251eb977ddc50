"""Pictures and videos of predictions beside the truth, small enough to stand inside a page."""

from __future__ import annotations

import base64
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mv3d.pixels import Frames, resize, to_uint8
from mv3d.video import write_video

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
    order = [(start + k) % len(truth) for k in range(len(truth))]
    frames = [np.concatenate([fit(p[k], _VIDEO_PX) for p in (truth, predicted)], axis=1) for k in order]
    with tempfile.TemporaryDirectory(prefix="mv3d-video-") as folder:
        path = Path(folder) / "turn.mp4"
        pictures = [to_uint8(frame) for frame in frames]
        write_video(pictures, path, frames_per_second=len(order) / _TURN_SECONDS, quality=6)
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

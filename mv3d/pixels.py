"""A picture in memory, float32 in [0, 1], sRGB, straight alpha: mixing, resampling and quantising it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from PIL import Image

Frames = NDArray[np.float32]
Box = tuple[float, float, float, float]

WHITE = (1.0, 1.0, 1.0)


def composite(rgba: Float[np.ndarray, "*N 4"], background: Sequence[float] = WHITE) -> Float32[np.ndarray, "*N 3"]:
    """Put straight-alpha pixels (*N, 4) on a plain background, in sRGB; returns (*N, 3)."""
    alpha = rgba[..., 3:]
    return (rgba[..., :3] * alpha + np.asarray(background) * (1 - alpha)).astype(np.float32)


def resize(
    rgba: Float32[np.ndarray, "H W 4"], width_px: int, height_px: int, box: Box | None = None
) -> Float32[np.ndarray, "{height_px} {width_px} 4"]:
    """Resample (H, W, 4), or its window ``box``, with an antialiased filter.

    Colours are weighted by alpha, so that hidden ones do not bleed through transparent pixels. ``box`` is (left, upper,
    right, lower) in pixels and may be fractional, but not reach outside the picture.
    """
    box = box or (0, 0, rgba.shape[1], rgba.shape[0])
    shrinks = width_px <= box[2] - box[0]
    resampling = Image.Resampling.HAMMING if shrinks else Image.Resampling.BICUBIC  # no halo, no dislocated pixels
    premultiplied = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)
    planes = [Image.fromarray(premultiplied[..., c]).resize((width_px, height_px), resampling, box) for c in range(4)]
    resampled = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    alpha = resampled[..., 3:]  # BICUBIC overshoots: colours are divided by it as it is, then both are clipped
    straight = np.concatenate([resampled[..., :3] / np.maximum(alpha, 1e-6), alpha], axis=-1)
    return np.clip(straight, 0, 1).astype(np.float32)


def to_uint8(pixels: Float[np.ndarray, "*N"]) -> UInt8[np.ndarray, "*N"]:
    """Quantise [0, 1] to [0, 255] by rounding."""
    return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def from_uint8(pixels: UInt8[np.ndarray, "*N"]) -> Float32[np.ndarray, "*N"]:
    """Invert `to_uint8`."""
    return pixels.astype(np.float32) / np.float32(255)

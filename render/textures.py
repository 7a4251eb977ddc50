"""Texture pictures with their reduced copies, packed so that one call looks up any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from render.colour import srgb_to_linear

_LINEAR_OF_BYTE = srgb_to_linear(np.arange(256) / 255).astype(np.float32)


class TextureStack:
    """Every texture at every halving, in linear light with premultiplied alpha.

    Reduced copies ("mip maps", Williams 1983) keep fine patterns from flickering between views.
    """

    def __init__(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        texels, widths, heights, starts, first_level, levels = [], [], [], [], [], []
        start = 0
        for picture in pictures:
            first_level.append(len(widths))
            level = _LINEAR_OF_BYTE[picture[..., :3]]
            alpha = picture[..., 3:].astype(np.float32) / 255
            level = np.concatenate([level * alpha, alpha], axis=-1)
            while True:
                height, width = level.shape[:2]
                texels.append(level.reshape(-1, 4))
                widths.append(width)
                heights.append(height)
                starts.append(start)
                start += height * width
                if height == width == 1:
                    break
                level = _halve(level)
            levels.append(len(widths) - first_level[-1])
        self._texels = np.concatenate(texels) if texels else np.zeros((0, 4), np.float32)
        self._widths, self._heights, self._starts = np.array(widths), np.array(heights), np.array(starts)
        self._first_level, self._levels = np.array(first_level), np.array(levels)

    def level_sizes(self, texture: NDArray) -> NDArray:
        """Width and height in texels of the full pictures, (..., 2)."""
        first = self._first_level[texture]
        return np.stack([self._widths[first], self._heights[first]], axis=-1)

    def lookup(self, texture: NDArray, level: NDArray, uv: NDArray) -> NDArray:
        """Bilinear colours (N, 4), premultiplied linear, at wrapped ``uv`` (N, 2); level 0 is the full picture."""
        index = self._first_level[texture] + np.clip(level, 0, self._levels[texture] - 1)
        width, height, start = self._widths[index], self._heights[index], self._starts[index]
        x = uv[:, 0] % 1 * width - 0.5
        y = (-uv[:, 1]) % 1 * height - 0.5
        x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        fx, fy = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
        left, right = x0 % width, (x0 + 1) % width
        upper, lower = start + y0 % height * width, start + (y0 + 1) % height * width
        top = self._texels[upper + left] * (1 - fx) + self._texels[upper + right] * fx
        bottom = self._texels[lower + left] * (1 - fx) + self._texels[lower + right] * fx
        return top * (1 - fy) + bottom * fy


def _halve(level: NDArray) -> NDArray:
    height, width = level.shape[:2]
    if height > 1:
        level = (level[0 : height // 2 * 2 : 2] + level[1 : height // 2 * 2 : 2]) / 2
    if width > 1:
        level = (level[:, 0 : width // 2 * 2 : 2] + level[:, 1 : width // 2 * 2 : 2]) / 2
    return level

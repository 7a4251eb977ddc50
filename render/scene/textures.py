"""Texture pictures with their reduced copies, packed so that one call looks up any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mv3d.srgb import srgb_to_linear

_LINEAR_OF_BYTE = srgb_to_linear(np.arange(256) / 255).astype(np.float32)


class TextureStack:
    """Every texture at every halving, in linear light with premultiplied alpha.

    Reduced copies ("mip maps", Williams 1983) keep fine patterns from flickering between views.
    """

    def __init__(self, pictures: Sequence[NDArray[np.uint8]], clamped: Sequence[tuple[bool, bool]] = ()) -> None:
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
        self._widths, self._heights, self._starts = (np.array(x, dtype=np.int32) for x in (widths, heights, starts))
        self._first_level, self._levels = np.array(first_level), np.array(levels)
        clamps = np.repeat(np.reshape(clamped, (-1, 2)), levels, axis=0) if any(map(any, clamped)) else None
        self._clamped_u, self._clamped_v = (None, None) if clamps is None else clamps.T.copy()
        self.opaque = all((picture[..., 3] == 255).all() for picture in pictures)
        """Whether no texture lets anything through."""

    def sizes(self, texture: NDArray) -> NDArray:
        """Width and height in texels of the full pictures, (..., 2)."""
        first = self._first_level[texture]
        return np.stack([self._widths[first], self._heights[first]], axis=-1)

    def copies(self, texture: NDArray, halvings: NDArray) -> NDArray[np.int32]:
        """Which reduced copy to look into: the pictures' numbers and how often they are halved, as far as they can."""
        return (self._first_level[texture] + np.clip(halvings, 0, self._levels[texture] - 1)).astype(np.int32)

    def lookup(self, copy: NDArray[np.int32], u: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bilinear colours (N, 4), premultiplied linear, at the wrapped texture coordinates ``u`` and ``v`` (N,)."""
        width, height, start = self._widths.take(copy), self._heights.take(copy), self._starts.take(copy)
        if self._clamped_u is not None and self._clamped_v is not None:
            u = np.where(self._clamped_u.take(copy), _within(u, width), u)
            v = np.where(self._clamped_v.take(copy), _within(v, height), v)
        left, right, fx = _neighbours(u, width)
        upper, lower, fy = _neighbours(-v, height)
        upper *= width
        upper += start
        lower *= width
        lower += start
        top = self._between(upper + left, upper + right, fx)
        bottom = self._between(lower + left, lower + right, fx)
        bottom -= top
        bottom *= fy[:, None]
        bottom += top
        return bottom

    def _between(self, first: NDArray, second: NDArray, share: NDArray) -> NDArray[np.float32]:
        low, mixed = self._texels.take(first, axis=0), self._texels.take(second, axis=0)
        mixed -= low
        mixed *= share[:, None]
        mixed += low
        return mixed


def _within(coordinate: NDArray[np.float32], count: NDArray[np.int32]) -> NDArray[np.float32]:
    """Between the middles of the first and the last texel."""
    half = np.float32(0.5) / count.astype(np.float32)
    return np.clip(coordinate, half, 1 - half)


def _neighbours(coordinate: NDArray[np.float32], count: NDArray[np.int32]) -> tuple[NDArray, NDArray, NDArray]:
    """The texels before and after a wrapped coordinate, and how near it is to the second."""
    at = (coordinate - np.floor(coordinate)) * count.astype(np.float32) - np.float32(0.5)
    floor = np.floor(at)
    before = floor.astype(np.int32)
    after = before + 1
    after -= count * (after >= count)
    before += count * (before < 0)
    return before, after, at - floor


def _halve(level: NDArray) -> NDArray:
    height, width = level.shape[:2]
    if height > 1:
        level = (level[0 : height // 2 * 2 : 2] + level[1 : height // 2 * 2 : 2]) / 2
    if width > 1:
        level = (level[:, 0 : width // 2 * 2 : 2] + level[:, 1 : width // 2 * 2 : 2]) / 2
    return level

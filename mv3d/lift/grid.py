"""A regular grid of points in the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Points at ``origin + spacing * (i, j, k)`` for indices below ``shape``."""

    origin: Array
    spacing: float
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, low: Array, high: Array, cells: int, margin: int) -> Grid:
        """Cover a box with ``cells`` cells on its longest side and ``margin`` more on every side."""
        spacing = float((high - low).max()) / cells
        shape = np.ceil((high - low) / spacing).astype(int) + 1 + 2 * margin
        origin = (low + high) / 2 - spacing * (shape - 1) / 2
        return cls(origin, spacing, (int(shape[0]), int(shape[1]), int(shape[2])))

    @property
    def indices(self) -> NDArray[np.int64]:
        """The indices of all points, (P, 3), in C order."""
        return np.indices(self.shape).reshape(3, -1).T

    def points(self, indices: NDArray) -> Array:
        """Positions of grid points given by their indices (..., 3), which may be fractional."""
        return self.origin + self.spacing * indices

    def interpolate(self, field: NDArray[np.float32], points: Array) -> NDArray[np.float32]:
        """Look a field on the grid up at points (P, 3), trilinearly."""
        at = ((points - self.origin) / self.spacing).T
        return ndimage.map_coordinates(field, at, order=1, mode="nearest")

    def resample(self, field: NDArray[np.float32], other: Grid) -> NDArray[np.float32]:
        """`interpolate` at all points of another grid, axis by axis: its shape and what else ``field`` has."""
        for axis in range(3):
            place = other.origin[axis] + other.spacing * np.arange(other.shape[axis])
            at = ((place - self.origin[axis]) / self.spacing).clip(0, self.shape[axis] - 1)
            first = np.minimum(at.astype(np.intp), self.shape[axis] - 2)
            part = np.expand_dims((at - first).astype(np.float32), tuple(k for k in range(field.ndim) if k != axis))
            low = field.take(first, axis)
            field = low + part * (field.take(first + 1, axis) - low)
        return field

"""Points along the rays of many pixels, and what a grid says there: a sparse matrix, the same one for many steps."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from torch import Tensor

from mv3d.cameras import Camera
from mv3d.lift.grid import Grid

Array = NDArray[np.float64]

_STRIDE = 4  # cells


@dataclass(frozen=True, eq=False)
class PixelRays:
    """The rays of R pixels of several views."""

    view: NDArray[np.int64]
    """The view each pixel belongs to, (R,)."""
    origins: NDArray[np.float32]
    """(R, 3)."""
    directions: NDArray[np.float32]
    """(R, 3), of length 1."""
    rgba: NDArray[np.float32]
    """What the views show, (R, 4), straight alpha."""

    def __len__(self) -> int:
        return len(self.view)

    def take(self, chosen: NDArray[np.int64]) -> PixelRays:
        """Some of the rays."""
        return PixelRays(self.view[chosen], self.origins[chosen], self.directions[chosen], self.rgba[chosen])

    @classmethod
    def through(cls, pixels: NDArray[np.bool_], frames: NDArray[np.float32], cameras: tuple[Camera, ...]) -> PixelRays:
        """Rays through the pixels that ``pixels`` (N, H, W) marks in ``frames`` (N, H, W, 4)."""
        view, row, column = np.nonzero(pixels)
        origins, directions = (np.empty((len(view), 3), np.float32) for _ in range(2))
        for k, camera in enumerate(cameras):
            mine = view == k
            centres = np.stack([column[mine], row[mine]], axis=-1) + 0.5
            origins[mine], directions[mine] = camera.position, camera.directions(centres)
        return cls(view, origins, directions, frames[view, row, column])


@dataclass(frozen=True, eq=False)
class Samples:
    """P points on rays, in the order of the rays and from the camera away."""

    ray: NDArray[np.int64]
    """(P,), ascending."""
    points: NDArray[np.float32]
    """(P, 3)."""

    def take(self, chosen: NDArray[np.bool_]) -> Samples:
        """Some of the points."""
        return Samples(self.ray[chosen], self.points[chosen])


def sample_rays(rays: PixelRays, grid: Grid, allowed: NDArray[np.bool_], rng: np.random.Generator) -> Samples:
    """Points a cell apart, shifted at random along each ray, where ``allowed`` marks the nearest grid point."""
    low = grid.points(np.zeros(3)).astype(np.float32)
    high = grid.points(np.array(grid.shape) - 1).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        to_low, to_high = (low - rays.origins) / rays.directions, (high - rays.origins) / rays.directions
    near = np.nanmax(np.minimum(to_low, to_high), axis=1).clip(min=0)
    far = np.nanmin(np.maximum(to_low, to_high), axis=1)
    step = np.float32(grid.spacing)
    counts = np.ceil((far - near) / step).clip(min=0).astype(np.int64)
    first = near + rng.random(len(rays), dtype=np.float32) * step
    # Of every ray, its first point and its step in grid points.
    start = (rays.origins + first[:, None] * rays.directions - low) / step
    # Most of the grid is empty: what is near no place that counts is passed over in strides.
    ray, place = _enumerate(-(-counts // _STRIDE))
    place *= _STRIDE
    passable = ndimage.maximum_filter(allowed.view(np.uint8), _STRIDE + 3).view(bool)
    kept = np.flatnonzero(_looked_up(passable, start, rays.directions, ray, place + _STRIDE // 2, beyond=True))
    ray, place = np.repeat(ray[kept], _STRIDE), (place[kept, None] + np.arange(_STRIDE)).ravel()
    exists = place < counts[ray]
    kept = np.flatnonzero(exists & _looked_up(allowed, start, rays.directions, ray, place, beyond=False))
    ray, place = ray[kept], place[kept].astype(np.float32)
    at = start.take(ray, axis=0) + place[:, None] * rays.directions.take(ray, axis=0)
    return Samples(ray, low + step * at)


def _looked_up(
    field: NDArray[np.bool_],
    start: NDArray[np.float32],
    direction: NDArray[np.float32],
    ray: NDArray[np.int64],
    place: NDArray[np.int64],
    *,
    beyond: bool,
) -> NDArray[np.bool_]:
    """What a field on the grid says at the grid points nearest to places on rays, (P,).

    ``start`` and ``direction`` are those of all rays, (R, 3), in grid points. ``beyond`` says whether what the border
    says counts off the grid, too; otherwise there is nothing.
    """
    index, off = np.zeros(len(ray), dtype=np.int64), np.zeros(len(ray), dtype=bool)
    steps = place.astype(np.float32)
    for axis, size in enumerate(field.shape):
        at = np.rint(start[:, axis].take(ray) + steps * direction[:, axis].take(ray)).astype(np.int64)
        off |= (at < 0) | (at >= size)
        index = index * size + at.clip(0, size - 1)
    found = field.ravel().take(index)
    return found if beyond else found & ~off


def _enumerate(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For things with some parts each: whose part it is, and which of them, for every part in order."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


class LookUp:
    """Trilinear interpolation at fixed points: a matrix (P, A) with eight entries in each row.

    Its columns are the A grid points that any point lies beside, which are few: `take` takes them from the grid.
    """

    def __init__(self, grid: Grid, points: NDArray[np.float32], device: torch.device) -> None:
        shape = np.array(grid.shape)
        at = ((points - grid.origin.astype(np.float32)) / np.float32(grid.spacing)).clip(0, shape - 1.001)
        first = at.astype(np.int32)
        part = at - first
        strides = np.array([shape[1] * shape[2], shape[2], 1], dtype=np.int32)
        corner = first @ strides
        columns = np.empty((len(points), 8), dtype=np.int32)
        values = np.empty((len(points), 8), dtype=np.float32)
        x, y, z = (np.stack([1 - column, column], axis=1) for column in part.T)
        for k in range(8):
            i, j, m = k >> 2 & 1, k >> 1 & 1, k & 1
            columns[:, k] = corner + int(np.array([i, j, m]) @ strides)
            values[:, k] = x[:, i] * y[:, j] * z[:, m]
        number = np.zeros(int(shape.prod()), dtype=np.int32)
        number[columns.ravel()] = 1
        used = np.flatnonzero(number)
        number[used] = np.arange(len(used), dtype=np.int32)
        indptr = np.arange(len(points) + 1, dtype=np.int32) * 8
        matrix = sparse.csr_matrix((values.ravel(), number[columns.ravel()], indptr), (len(points), len(used)))
        self._used = torch.from_numpy(used).to(device)
        self._forward = _to_torch(matrix, device)
        self._backward = _to_torch(matrix.T.tocsr(), device)

    def take(self, values: Tensor) -> Tensor:
        """Of values on the grid, (grid points, C), those that count, (A, C), with gradients."""
        out = _Take.apply(values, self._used)
        assert isinstance(out, Tensor)
        return out

    def __call__(self, *values: Tensor) -> Tensor:
        """Interpolate ``values``, each (A, C), side by side at the points, (P, sum of C), with gradients."""
        out = _Multiply.apply(self._forward, self._backward, *values)
        assert isinstance(out, Tensor)
        return out


class _Take(torch.autograd.Function):
    """Some rows, each once; torch's own backward pass adds, row by row."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor) -> Tensor:
        ctx.rows, ctx.shape = rows, values.shape
        return values.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        out = grads[0].new_zeros(ctx.shape)
        out[ctx.rows] = grads[0]
        return out, None


class _Multiply(torch.autograd.Function):
    """Sparse times dense; torch's own backward pass transposes the matrix anew each time."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, *values: Tensor) -> Tensor:
        ctx.transposed, ctx.widths = transposed, [part.shape[1] for part in values]
        return matrix @ torch.cat(values, dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(ctx.transposed @ grads[0].contiguous()).split(ctx.widths, dim=1)


def _to_torch(matrix: sparse.csr_matrix, device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        with torch.sparse.check_sparse_tensor_invariants(enable=False):
            parts = (torch.from_numpy(part).to(device) for part in (matrix.indptr, matrix.indices, matrix.data))
            return torch.sparse_csr_tensor(*parts, size=matrix.shape)

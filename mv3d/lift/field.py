"""A surface as a signed distance on a grid, with colours, and how rays see it.

VolSDF's idea (Yariv et al. 2021, eq. 2 and 3) with a logistic in place of Laplace's distribution: density is
``sigmoid(distance / blur) / blur``, distance positive inside. A ray that meets the surface head on has then lost half
of its light exactly where the distance is zero, whatever the blur; so a fit may begin with fog and end with a surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mv3d.lift.grid import Grid
from mv3d.lift.rays import LookUp, Samples


@dataclass(eq=False)
class SurfaceField:
    """What is fitted: both tensors require gradients."""

    grid: Grid
    distance: Tensor
    """(grid points, 1), world units."""
    colour: Tensor
    """(grid points, 3), sRGB."""
    limit: Tensor
    """The distance's upper bound, (grid points, 1): the hull, out of which nothing reaches."""

    @classmethod
    def of(
        cls,
        grid: Grid,
        distance: NDArray[np.float32],
        colour: NDArray[np.float32],
        limit: NDArray[np.float32],
        device: torch.device,
    ) -> SurfaceField:
        """Begin with values on the grid: ``distance`` and ``limit`` (X, Y, Z), ``colour`` (X, Y, Z, 3)."""
        tensors = (torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in (distance, colour, limit))
        d, c, m = (t.float().reshape(int(np.prod(grid.shape)), -1) for t in tensors)
        return cls(grid, d.requires_grad_(), c.requires_grad_(), m)

    def bounded(self) -> Tensor:
        """The distance within its bound, (grid points, 1)."""
        return torch.minimum(self.distance, self.limit)

    def render(self, look_up: LookUp, lengths: Tensor, blur: float) -> Tensor:
        """Premultiplied RGBA of rays, (R, 4).

        Args:
            look_up: the samples of all rays, in order, a cell apart.
            lengths: how many of them each ray has, (R,).
            blur: of the surface, world units.
        """
        distance = torch.minimum(look_up.take(self.distance), look_up.take(self.limit))
        values = look_up(distance, look_up.take(self.colour))
        seen = _Composite.apply(values, lengths, blur, self.grid.spacing)
        assert isinstance(seen, Tensor)
        return seen

    def bending(self, blur: float) -> Tensor:
        """How bent what is carved away is near the surface, in cells; the hull's own edges may be sharp.

        That the distance's gradient has length 1 (the eikonal term of VolSDF) is not asked: it kept fog from being
        carved (docs/log/2026-11-24-lifting-fitted-to-colours.md).
        """
        carved = (self.limit - self.distance).reshape(self.grid.shape) / self.grid.spacing
        near = _middle(self.distance.detach().reshape(self.grid.shape)).abs() < 3 * blur + self.grid.spacing
        bent = _Bending.apply(carved, near)
        assert isinstance(bent, Tensor)
        return bent

    def bounded_array(self) -> NDArray[np.float32]:
        """The distance within its bound, (X, Y, Z)."""
        return self.bounded().detach().cpu().numpy().reshape(self.grid.shape)

    def resampled(self, grid: Grid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What is carved away from the bound (X, Y, Z) and the colours (X, Y, Z, 3) on another grid."""
        carved = (self.limit - self.distance).clamp(min=0)
        both = (part.detach().cpu().numpy().reshape(*self.grid.shape, -1) for part in (carved, self.colour))
        carved, colour = (self.grid.resample(part, grid) for part in both)
        return carved[..., 0], colour


def ray_weights(distance: Tensor, lengths: Tensor, blur: float, step: float) -> Tensor:
    """How much each sample (P,) contributes to its ray (NeRF, Mildenhall et al. 2020, eq. 3)."""
    thickness = torch.sigmoid(distance / blur) * (step / blur)
    return _light_before(thickness, _owners(lengths), lengths) * -torch.expm1(-thickness)


def _owners(lengths: Tensor) -> Tensor:
    """The ray of each sample, (P,)."""
    return torch.repeat_interleave(lengths)


def _light_before(thickness: Tensor, ray: Tensor, lengths: Tensor) -> Tensor:
    """How much light is left before each sample, (P,)."""
    # One running sum over all rays; float64, since it grows far beyond any one of them.
    before = thickness.double().cumsum(0) - thickness
    first = (lengths.cumsum(0) - lengths).clamp(max=max(len(thickness) - 1, 0))
    start = before[first][ray] if len(thickness) else before
    return torch.exp((start - before).float())


def visible_samples(
    samples: Samples, distance: NDArray[np.float32], num_rays: int, blur: float, step: float
) -> NDArray[np.bool_]:
    """Which samples a ray gets any light from."""
    lengths = torch.from_numpy(np.bincount(samples.ray, minlength=num_rays))
    return (ray_weights(torch.from_numpy(distance), lengths, blur, step) > 1e-3).numpy()


class _Composite(torch.autograd.Function):
    """Premultiplied RGBA of rays (R, 4) from distances and colours of their samples (P, 4).

    With its own backward pass, which needs a third of the memory passes of autograd's.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, lengths: Tensor, blur: float, step: float) -> Tensor:
        ray = _owners(lengths)
        inside = torch.sigmoid(values[:, 0] / blur)
        thickness = inside * (step / blur)
        before = _light_before(thickness, ray, lengths)
        weight = before * -torch.expm1(-thickness)
        parts = torch.empty_like(values)
        torch.mul(values[:, 1:], weight[:, None], out=parts[:, :3])
        parts[:, 3] = weight
        ctx.save_for_backward(values, lengths, ray, inside, before, weight)
        ctx.per_distance = step / blur**2
        return torch.segment_reduce(parts, "sum", lengths=lengths, unsafe=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, lengths, ray, inside, before, weight = ctx.saved_tensors
        out = grads[0].index_select(0, ray)
        worth = out[:, 3] + (out[:, :3] * values[:, 1:]).sum(dim=1)
        behind = (weight * worth).double().cumsum(0)
        ends = behind[(lengths.cumsum(0) - 1).clamp(min=0)] if len(values) else behind
        behind = (
            ends[ray] - behind
        ).float()  # what all later samples of the ray contribute: less, if this one is thicker
        per_distance = ((before - weight) * worth - behind) * inside * (1 - inside) * ctx.per_distance
        return torch.cat([per_distance[:, None], weight[:, None] * out[:, :3]], dim=1), None, None, None


class _Bending(torch.autograd.Function):
    """The mean square of a sixth of the Laplacian, where ``near`` says; autograd would fill a grid for every slice."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, near: Tensor) -> Tensor:
        bend = -_middle(values)
        for beside in _beside(values):
            bend.add_(beside, alpha=1 / 6)
        bend.mul_(near)
        ctx.count = near.sum().clamp(min=1)
        ctx.save_for_backward(bend)
        return bend.square().sum() / ctx.count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        bend = ctx.saved_tensors[0] * (2 * grads[0] / ctx.count)
        out = bend.new_zeros([size + 2 for size in bend.shape])
        _middle(out).sub_(bend)
        for beside in _beside(out):
            beside.add_(bend, alpha=1 / 6)
        return out, None


def _middle(values: Tensor) -> Tensor:
    """A grid without its border."""
    return values[1:-1, 1:-1, 1:-1]


def _beside(values: Tensor) -> list[Tensor]:
    """The six neighbours of every point of `_middle`, as views of the grid."""
    inner, back, on = slice(1, -1), slice(None, -2), slice(2, None)
    places = [(back, inner, inner), (on, inner, inner), (inner, back, inner), (inner, on, inner)]
    return [values[place] for place in [*places, (inner, inner, back), (inner, inner, on)]]

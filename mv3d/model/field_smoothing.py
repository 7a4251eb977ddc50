"""A coarse network's field without the noise that it has from voxel to voxel and from ray to ray.

What is added on the grid comes out of a pixel shuffle, whose voxels err each by itself, as do colours; the bins along a
ray are found by that ray alone. Both roughen the surface: dents, and ragged rims. Neighbours are averaged, as cost
volumes of stereo are (Hosni et al. 2013, "Fast cost-volume filtering for visual correspondence and beyond").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mv3d.model.coarse import Field

_GRID_SIGMA = 1.0  # voxels
_RAY_SIGMA = 1.0  # rays
_REACH = 3  # sigmas of a Gaussian that are counted


def smoothed_field(field: Field) -> Field:
    """Average a field's voxels with those around them, and its rays with those beside them in the silhouettes."""
    met = torch.zeros_like(field.volume[..., :1])
    met[field.rays.picture, 0, field.rays.row, field.rays.column] = 1
    total, count = (_blurred(part, _RAY_SIGMA, dims=(2, 3)) for part in (field.volume * met, met))
    volume = torch.where(met > 0, total / count.clamp(min=1e-6), field.volume)
    residual, appearance = (_blurred(grid, _GRID_SIGMA, dims=(2, 3, 4)) for grid in (field.residual, field.appearance))
    return field._replace(volume=volume, residual=residual, appearance=appearance)


def _blurred(x: Float[Tensor, "B C K L M"], sigma: float, dims: tuple[int, ...]) -> Float[Tensor, "B C K L M"]:
    """Gaussian of so many cells along some axes of (B, C, K, L, M), which go on as they end."""
    reach = round(_REACH * sigma)
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    weights = weights / weights.sum()
    one_by_one = x.flatten(0, 1)[:, None]
    for dim in dims:
        shape, padding = [1] * 5, [0] * 6
        shape[dim] = len(weights)
        padding[2 * (4 - dim)] = padding[2 * (4 - dim) + 1] = reach
        one_by_one = F.conv3d(F.pad(one_by_one, padding, mode="replicate"), weights.view(shape))
    return one_by_one.view(x.shape)

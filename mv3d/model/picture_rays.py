"""What a field has along the rays of a picture: where they meet the object, and which of them meet nothing."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from mv3d.lift.surface import SMALLEST_PART
from mv3d.model.frustum import Frustum, pixel_uv
from mv3d.model.semi_global import agreed_bins

_BINS = 64
_SURE_LOGIT = 2.0  # of a ray's fullest bin; what has less is lifted to it
_LEAST_MET = (0.3, 0.25)  # of a ray's distance to the outline, and cells: with less inside it, smoothing loses it
_POINTS_AT_ONCE = 1 << 18


class Solid(Protocol):
    """A coarse stage that can be asked about points in space; lengths are frame radii (`mv3d.model.frustum`)."""

    frustum: Frustum

    def occupancy_logits(self, field: Any, points: Float[Tensor, "1 P 3"]) -> Float[Tensor, "1 P"]:
        """Logits (1, P) of points (1, P, 3) being inside the object, before any silhouette is heeded."""
        ...


def ask_rays(
    solid: Solid, field: Any, alpha: Float[Tensor, "S S"], pose: Float[Tensor, "1 2"], rays_px: int
) -> tuple[Float[Tensor, "{rays_px} {rays_px}"], Float[Tensor, "{rays_px} {rays_px}"]]:
    """Of rays through the silhouette, (R, R) each: what they lack for a surely full bin, and the likeliest place.

    Places are across the slices of `mv3d.model.frustum`.
    """
    small = F.interpolate(alpha[None, None].float().cpu(), (rays_px, rays_px), mode="area")[0, 0]
    row, column = (small > 0.25).nonzero().unbind(-1)
    lacking, likeliest = torch.zeros(2, rays_px, rays_px)
    if len(row):
        uv = pixel_uv(rays_px)[row, column]
        points = solid.frustum.points(uv, pose.expand(len(uv), -1), _BINS)
        logits = ask_points(solid, field, points.reshape(-1, 3), alpha.device).view(len(row), _BINS)
        outside = points.square().sum(-1) > 1
        lacking[row, column] = (_SURE_LOGIT - logits.masked_fill(outside, -torch.inf).amax(dim=1)).clamp(min=0)
        met = agreed_bins(logits.masked_fill(outside, -torch.inf), row, column, rays_px)
        likeliest[row, column] = (met + 0.5) / _BINS * 2 - 1
    # Look-ups between the rim's rays and those beside it find the rim's.
    beside = F.max_pool2d((small > 0.25).float()[None], 3, stride=1, padding=1)[0] * (small <= 0.25)
    spread = F.avg_pool2d(torch.stack([likeliest, lacking, (small > 0.25).float()]), 3, stride=1, padding=1)
    likeliest = torch.where(beside > 0, spread[0] / spread[2].clamp(min=1e-6), likeliest)
    lacking = torch.where(beside > 0, spread[1] / spread[2].clamp(min=1e-6), lacking)
    return lacking, likeliest


def find_missed(
    frustum: Frustum, inside: Float[Tensor, "N N N"], outlines: Float[Tensor, "S S"], pose: Float[Tensor, "1 2"]
) -> tuple[Float[Tensor, "N N"], Float[Tensor, "N N"]]:
    """Which rays through the silhouette meet nothing, and where the object begins beside them.

    Where neighbouring rays are lifted far apart, too little is left of either for a surface, or specks that hang on to
    nothing.

    Args:
        frustum: of the picture.
        inside: (N, N, N), x, y and z, roughly distances in cells into the object, positive inside.
        outlines: (S, S), distances in cells into the silhouette.
        pose: of the picture.

    Returns:
        (N, N) each: 1 for rays that meet nothing and those around them, else 0; and the place of the nearest ray that
        meets something, across the slices of `mv3d.model.frustum`, just beneath its surface. Zeros if none does.
    """
    cells = len(inside)
    bins = 2 * cells
    depth = look_up(outlines, pixel_uv(cells).reshape(-1, 2)).view(cells, cells)
    within = depth > 0
    uv = pixel_uv(cells)[within]
    points = frustum.points(uv, pose.expand(len(uv), -1), bins)
    whole = torch.where(_specks(inside), inside.clamp(max=0), inside)
    along = F.grid_sample(whole.permute(2, 1, 0)[None, None], points[None, :, :, None], align_corners=False)[
        0, 0, ..., 0
    ]
    share, enough = _LEAST_MET
    met, first = torch.zeros_like(within), torch.zeros_like(depth)
    met[within] = along.amax(dim=-1) > (share * depth[within]).clamp(0, enough)
    first[within] = (along > 0).float().argmax(dim=-1).float()
    if not met.any():
        return torch.zeros_like(depth), torch.zeros_like(depth)
    nearest = ndimage.distance_transform_edt(~met.numpy(), return_distances=False, return_indices=True)
    place = (first.numpy()[tuple(nearest)] + 2.5) / bins * 2 - 1  # the second bin behind the first
    missed = F.max_pool2d((within & ~met).float()[None], 3, stride=1, padding=1)[0]
    return missed, torch.from_numpy(place)


def _specks(inside: Float[Tensor, "N N N"]) -> Tensor:
    """Where (N, N, N) the parts are that a surface leaves out for being too small."""
    labels, _ = ndimage.label(inside.numpy() > 0)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # outside
    return torch.from_numpy((sizes < SMALLEST_PART * sizes.max())[labels] & (labels > 0))


def ask_points(solid: Solid, field: Any, points: Float[Tensor, "P 3"], device: torch.device) -> Float[Tensor, " P"]:
    """Logits (P,) at points (P, 3), here; the field is on a device."""
    chunks = points.to(device).split(_POINTS_AT_ONCE)
    return torch.cat([solid.occupancy_logits(field, chunk[None])[0].float().cpu() for chunk in chunks])


def look_up(picture: Float[Tensor, "S S"], uv: Float[Tensor, "P n"]) -> Float[Tensor, " P"]:
    """Bilinear look-up of (S, S) at u and v, the first of (P, 2) or (P, 3)."""
    at = uv[None, None, :, :2]
    return F.grid_sample(picture[None, None].float(), at, align_corners=False, padding_mode="border")[0, 0, 0]

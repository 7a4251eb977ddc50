"""From the coarse stage's field to one closed surface: geometry is decided here, once, for views and mesh alike."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from mv3d.lift.grid import Grid
from mv3d.lift.silhouettes import outline_distance
from mv3d.lift.surface import extract_surface, smoothed
from mv3d.mesh import Mesh
from mv3d.model.frustum import Frustum, axes, pixel_uv

_MOST_CELLS = 128  # along each side; fewer for a smaller picture
_BINS = 64
_FACES = 16_000
_SURE_LOGIT = 2.0  # of a ray's fullest bin; what has less is lifted to it
_SHARPNESS = 2.0  # of the choice of the likeliest place: between two equally likely ones there is nothing
_UPRIGHT = 10.0  # rays of 128, up and down, over which the choice is averaged within slices: posts become straight
_SUREST = 8.0  # logits of single rays, when they are averaged
_LOGITS_PER_CELL = 2.0  # roughly how steep occupancy is at a surface
_STEEPEST = 4.0  # cells from the surface at which the field is cut off
_DEEPEST = 1.5  # how many times deeper than to its outline a thin part may be
_SMOOTHING = 0.8  # of occupancy, in cells: beneath what thin parts measure
_ROUNDING = 0.5  # of the edge between what is seen and the outline, in cells: there the grid's steps show
_SNAPPED = 1.5  # cells from the outline within which the rim is drawn to it: smoothing has moved it
_EDGE_ON = (0.2, 0.4)  # cosines between surface and ray up to which it is the rim wholly, and not at all
_SMOOTHING_PASSES = (10, 2)  # after each move of the rim, which leaves it rough
_REACH = 3  # cells around the silhouette where the field is asked too, so that smoothing does not eat the rim
_POINTS_AT_ONCE = 1 << 18


class Solid(Protocol):
    """A coarse stage that can be asked about points in space; lengths are frame radii (`mv3d.model.frustum`)."""

    frustum: Frustum

    def occupancy_logits(self, field: Any, points: Float[Tensor, "1 P 3"]) -> Float[Tensor, "1 P"]:
        """Logits (1, P) of points (1, P, 3) being inside the object, before any silhouette is heeded."""
        ...


@torch.no_grad()
def extract_field(solid: Solid, field: Any, alpha: Float[Tensor, "S S"], elevation_rad: float) -> Mesh:
    """Find the closed surface of a field that fills a picture's silhouette.

    Every ray through the silhouette meets something: where the field is sure of nothing along a ray, the likeliest
    place is taken, not much deeper than the silhouette is wide there, so that thin parts stay whole. The surface keeps
    within the silhouette, at the picture's resolution.

    Args:
        solid: the network.
        field: its field of one object.
        alpha: (S, S) of the picture, whose camera is at azimuth 0.
        elevation_rad: of that camera.

    Returns:
        The mesh, in frame radii.

    Raises:
        Mv3dError: if nothing is left.
    """
    cells = min(_MOST_CELLS, len(alpha))
    shape = (cells, cells, cells)
    axis = (torch.arange(cells) + 0.5) / cells * 2 - 1
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    pose = torch.tensor([[0.0, elevation_rad]])
    at = solid.frustum.project(points[None], pose)[0]
    outlines = torch.from_numpy(outline_distance(alpha.cpu().numpy(), 0)) * (cells / len(alpha))  # inside positive
    outline = _sampled(outlines, at)
    near = (outline > -_REACH) & (points.square().sum(-1) < 1)
    inside = torch.full((len(points),), -_STEEPEST)
    logits = _ask(solid, field, points[near], alpha.device)
    inside[near] = (logits / _LOGITS_PER_CELL).clamp(-_STEEPEST, _STEEPEST)
    inside = torch.from_numpy(ndimage.gaussian_filter(inside.view(shape).numpy(), _SMOOTHING)).view(-1)
    lacking, likeliest = ask_rays(solid, field, alpha, pose, cells)
    lacks = _sampled(lacking, at[near])
    thin = near.nonzero()[:, 0][lacks > 0]
    lifted = (logits + lacks)[lacks > 0] / _LOGITS_PER_CELL
    off = (at[thin, 2] - _sampled(likeliest, at[thin])).abs() * (cells / 2)
    inside[thin] = torch.maximum(inside[thin], torch.minimum(lifted, _DEEPEST * outline[thin] + 1.5 - off))
    signed = torch.minimum(inside, outline.clamp(-_STEEPEST, _STEEPEST)).view(shape).numpy()
    signed = ndimage.gaussian_filter(signed, _ROUNDING)
    grid = Grid(np.full(3, float(axis[0])), 2 / cells, shape)
    surface = smoothed(extract_surface(signed, grid, _FACES), _SMOOTHING_PASSES[0])
    for passes in _SMOOTHING_PASSES:
        surface = smoothed(_snapped(surface, solid.frustum, outlines, pose, cells), passes)
    return surface


def _snapped(
    mesh: Mesh, frustum: Frustum, outlines: Float[Tensor, "S S"], pose: Float[Tensor, "1 2"], cells: int
) -> Mesh:
    """Move the surface's rim, as the picture's camera sees it, on to the silhouette's outline.

    ``outlines`` (S, S) are distances to it in cells, positive inside.
    """
    vertices = torch.from_numpy(mesh.vertices).float()
    missed = _sampled(outlines, frustum.project(vertices[None], pose)[0]).numpy()
    rays = (vertices - frustum.distance * axes(pose)[0, 2]).numpy()
    normals = mesh.vertex_normals()
    cosine = np.abs((normals * rays).sum(axis=1)) / np.linalg.norm(rays, axis=1)
    share = np.clip((_EDGE_ON[1] - cosine) / (_EDGE_ON[1] - _EDGE_ON[0]), 0, 1) * (np.abs(missed) < _SNAPPED)
    moved = mesh.vertices + normals * (share * missed * 2 / cells)[:, None]
    return Mesh(moved, mesh.faces, mesh.texture)


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
        logits = _ask(solid, field, points.reshape(-1, 3), alpha.device).view(len(row), _BINS)
        outside = points.square().sum(-1) > 1
        along = (torch.arange(_BINS) + 0.5) / _BINS * 2 - 1
        lacking[row, column] = (_SURE_LOGIT - logits.masked_fill(outside, -torch.inf).amax(dim=1)).clamp(min=0)
        choice = _averaged_upright(logits, row, column, rays_px).masked_fill(outside, -torch.inf)
        likeliest[row, column] = ((choice * _SHARPNESS).softmax(dim=1) * along).nansum(dim=1)
    # Look-ups between the rim's rays and those beside it find the rim's.
    beside = F.max_pool2d((small > 0.25).float()[None], 3, stride=1, padding=1)[0] * (small <= 0.25)
    spread = F.avg_pool2d(torch.stack([likeliest, lacking, (small > 0.25).float()]), 3, stride=1, padding=1)
    likeliest = torch.where(beside > 0, spread[0] / spread[2].clamp(min=1e-6), likeliest)
    lacking = torch.where(beside > 0, spread[1] / spread[2].clamp(min=1e-6), lacking)
    return lacking, likeliest


def _averaged_upright(
    logits: Float[Tensor, "K bins"], row: Tensor, column: Tensor, rays_px: int
) -> Float[Tensor, "K bins"]:
    """Logits (K, D) of rays at (row, column), averaged with those above and below in the same slices."""
    bins = logits.shape[1]
    grid = np.zeros((bins + 1, rays_px, rays_px), dtype=np.float32)
    grid[:bins, row, column] = logits.clamp(-_SUREST, _SUREST).mT.numpy()
    grid[bins, row, column] = 1
    total = ndimage.gaussian_filter1d(grid, _UPRIGHT * rays_px / _MOST_CELLS, axis=1, mode="constant")[:, row, column]
    return torch.from_numpy(total[:bins] / total[bins]).mT


def _ask(solid: Solid, field: Any, points: Float[Tensor, "P 3"], device: torch.device) -> Float[Tensor, " P"]:
    """Logits (P,) at points (P, 3), here; the field is on a device."""
    chunks = points.to(device).split(_POINTS_AT_ONCE)
    return torch.cat([solid.occupancy_logits(field, chunk[None])[0].float().cpu() for chunk in chunks])


def _sampled(picture: Float[Tensor, "S S"], uv: Float[Tensor, "P n"]) -> Float[Tensor, " P"]:
    """Bilinear look-up of (S, S) at u and v, the first of (P, 2) or (P, 3)."""
    at = uv[None, None, :, :2]
    return F.grid_sample(picture[None, None].float(), at, align_corners=False, padding_mode="border")[0, 0, 0]

"""From the coarse stage's field to one closed surface: geometry is decided here, once, for views and mesh alike."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from mv3d.lift.grid import Grid
from mv3d.lift.silhouettes import outline_distance
from mv3d.lift.surface import extract_surface
from mv3d.mesh import Mesh
from mv3d.model.frustum import Frustum, pixel_uv

_CELLS = 128
_RAYS_PX = 128
_BINS = 64
_FACES = 16_000
_SURE_LOGIT = 0.5  # what the fullest bin of a ray through the silhouette has at least
_LOGITS_PER_CELL = 2.0  # roughly how steep occupancy is at a surface
_SMOOTHING = 0.6  # of occupancy, in cells: beneath what thin parts measure
_POINTS_AT_ONCE = 1 << 18


class Solid(Protocol):
    """A coarse stage that can be asked about points in space; lengths are frame radii (`mv3d.model.frustum`)."""

    frustum: Frustum

    def occupancy_logits(self, field: object, points: Tensor) -> Tensor:
        """Logits (1, P) of points (1, P, 3) being inside the object, before any silhouette is heeded."""
        ...


@torch.no_grad()
def extract_field(solid: Solid, field: object, alpha: Tensor, elevation_rad: float) -> Mesh:
    """Find the closed surface of a field that fills a picture's silhouette.

    Every ray through the silhouette meets something: where the field is not sure of anything along a ray, the likeliest
    place is taken, so that thin parts stay whole. The surface keeps within the silhouette, at the picture's resolution.

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
    axis = (torch.arange(_CELLS) + 0.5) / _CELLS * 2 - 1
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    pose = torch.tensor([[0.0, elevation_rad]])
    uv = solid.frustum.project(points[None], pose)[0, :, :2]
    outline = _sampled(torch.from_numpy(outline_distance(alpha.cpu().numpy(), 0)), uv)  # in pixels, inside positive
    outline *= _CELLS / len(alpha)
    near = (outline > -2) & (points.square().sum(-1) < 1)
    lift = _sampled(_lacking(solid, field, alpha, pose), uv[near])
    logits = torch.full((len(points),), -4 * _LOGITS_PER_CELL)
    logits[near] = _ask(solid, field, points[near]) + lift
    inside = (logits.clamp(-4 * _LOGITS_PER_CELL, 4 * _LOGITS_PER_CELL) / _LOGITS_PER_CELL).view((_CELLS,) * 3).numpy()
    inside = ndimage.gaussian_filter(inside, _SMOOTHING)
    signed = np.minimum(inside, outline.view((_CELLS,) * 3).clamp(-4, 4).numpy()).astype(np.float32)
    grid = Grid(np.full(3, float(axis[0])), 2 / _CELLS, (_CELLS,) * 3)
    return smoothed(extract_surface(signed, grid, _FACES))


def smoothed(mesh: Mesh, passes: int = 6) -> Mesh:
    """Even out the steps of the grid without shrinking (Taubin 1995)."""
    import trimesh
    from trimesh.smoothing import filter_taubin

    out = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    filter_taubin(out, lamb=0.5, nu=0.53, iterations=passes)
    return Mesh(np.asarray(out.vertices), mesh.faces, mesh.texture)


def _lacking(solid: Solid, field: object, alpha: Tensor, pose: Tensor) -> Tensor:
    """What rays (R, R) through the silhouette lack for a bin that is surely full, in logits."""
    small = F.interpolate(alpha[None, None].float().cpu(), (_RAYS_PX, _RAYS_PX), mode="area")[0, 0]
    row, column = (small > 0.5).nonzero().unbind(-1)
    lacking = torch.zeros(_RAYS_PX, _RAYS_PX)
    if len(row):
        uv = pixel_uv(_RAYS_PX)[row, column]
        points = solid.frustum.points(uv, pose.expand(len(uv), -1), _BINS)
        logits = _ask(solid, field, points.reshape(-1, 3)).view(len(row), _BINS)
        logits = logits.masked_fill(points.square().sum(-1) > 1, -torch.inf)
        lacking[row, column] = (_SURE_LOGIT - logits.amax(dim=1)).clamp(min=0)
    return lacking


def _ask(solid: Solid, field: object, points: Tensor) -> Tensor:
    """Logits (P,) at points (P, 3)."""
    chunks = points.split(_POINTS_AT_ONCE)
    return torch.cat([solid.occupancy_logits(field, chunk[None])[0].float().cpu() for chunk in chunks])


def _sampled(picture: Tensor, uv: Tensor) -> Tensor:
    """Bilinear look-up of (S, S) at uv (P, 2)."""
    found = F.grid_sample(picture[None, None].float(), uv[None, None], align_corners=False, padding_mode="border")
    return found[0, 0, 0]


def in_world(mesh: Mesh, frame_radius: float) -> Mesh:
    """The mesh in world units, for cameras whose frame radius is so long."""
    return Mesh(mesh.vertices * frame_radius, mesh.faces, mesh.texture)

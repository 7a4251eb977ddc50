"""From the coarse stage's field to one closed surface: geometry is decided here, once, for views and mesh alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from mv3d.lift.grid import Grid
from mv3d.lift.silhouettes import outline_distance
from mv3d.lift.surface import extract_surface, smoothed
from mv3d.mesh import Mesh
from mv3d.model.frustum import Frustum, axes
from mv3d.model.picture_rays import Solid, ask_points, ask_rays, find_missed, look_up

_MOST_CELLS = 128  # along each side; fewer for a smaller picture
_FACES = 16_000
_LOGITS_PER_CELL = 2.0  # roughly how steep occupancy is at a surface
_STEEPEST = 4.0  # cells from the surface at which the field is cut off
_DEEPEST = 1.5  # how many times deeper than to its outline a thin part may be
_FILLED = (1.0, 2.0)  # cells from the middle of what fills a ray that met nothing; then of what is still lost
_SMOOTHING = 0.8  # of occupancy, in cells: beneath what thin parts measure
_THINNEST = 0.75  # from its outline to its middle, in cells
_ROUNDING = 0.5  # of the edge between what is seen and the outline, in cells: there the grid's steps show
_SNAPPED = 1.5  # cells from the outline within which the rim is drawn to it: smoothing has moved it
_EDGE_ON = (0.2, 0.4)  # cosines between surface and ray up to which it is the rim wholly, and not at all
_SMOOTHING_PASSES = (10, 6)  # after each move of the rim, which leaves it rough
_REACH = 3  # cells around the silhouette where the field is asked too, so that smoothing does not eat the rim


@torch.no_grad()
def extract_field(solid: Solid, field: Any, alpha: Float[Tensor, "S S"], elevation_rad: float) -> Mesh:
    """Find the closed surface of a field that fills a picture's silhouette.

    Every ray through the silhouette meets something: where the field is sure of nothing along a ray, the likeliest
    place is taken, not much deeper than the silhouette is wide there, so that thin parts stay whole; a ray that meets
    nothing even so meets a thin sheet where its neighbour meets the object. The surface keeps within the silhouette, at
    the picture's resolution.

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
    outline = look_up(_thickened(outlines, cells), at)
    near = (outline > -_REACH) & (points.square().sum(-1) < 1)
    inside = torch.full((len(points),), -_STEEPEST)
    logits = ask_points(solid, field, points[near], alpha.device)
    inside[near] = (logits / _LOGITS_PER_CELL).clamp(-_STEEPEST, _STEEPEST)
    inside = torch.from_numpy(ndimage.gaussian_filter(inside.view(shape).numpy(), _SMOOTHING)).view(-1)
    lacking, likeliest = ask_rays(solid, field, alpha, pose, cells)
    lacks = look_up(lacking, at[near])
    thin = near.nonzero()[:, 0][lacks > 0]
    lifted = (logits + lacks)[lacks > 0] / _LOGITS_PER_CELL
    off = (at[thin, 2] - look_up(likeliest, at[thin])).abs() * (cells / 2)
    inside[thin] = torch.maximum(inside[thin], torch.minimum(lifted, _DEEPEST * outline[thin] + 1.5 - off))
    outline = outline.clamp(-_STEEPEST, _STEEPEST)
    inside = torch.minimum(inside, outline)
    for depth in _FILLED:
        missed, place = find_missed(solid.frustum, inside.view(shape), outlines, pose)
        if not missed.any():
            break
        thin = near.nonzero()[:, 0][look_up(missed, at[near]) > 0]
        off = (at[thin, 2] - look_up(place, at[thin])).abs() * (cells / 2)
        inside[thin] = torch.maximum(inside[thin], torch.minimum(outline[thin], depth - off))
    signed = ndimage.gaussian_filter(inside.view(shape).numpy(), _ROUNDING)
    grid = Grid(np.full(3, float(axis[0])), 2 / cells, shape)
    surface = smoothed(extract_surface(signed, grid, _FACES), _SMOOTHING_PASSES[0])
    for passes in _SMOOTHING_PASSES:
        surface = smoothed(_snapped(surface, solid.frustum, outlines, pose, cells), passes)
    return surface


def _thickened(outlines: Float[Tensor, "S S"], cells: int) -> Float[Tensor, "S S"]:
    """Distances in cells to the outline (S, S), with the thinnest parts made as thick as the grid can hold."""
    around = ndimage.maximum_filter(outlines.numpy(), size=round(2 * len(outlines) / cells) + 1)
    return outlines + torch.from_numpy(np.clip(_THINNEST - around, 0, _THINNEST))


def _snapped(
    mesh: Mesh, frustum: Frustum, outlines: Float[Tensor, "S S"], pose: Float[Tensor, "1 2"], cells: int
) -> Mesh:
    """Move the surface's rim, as the picture's camera sees it, on to the silhouette's outline.

    ``outlines`` (S, S) are distances to it in cells, positive inside.
    """
    vertices = torch.from_numpy(mesh.vertices).float()
    missed = look_up(outlines, frustum.project(vertices[None], pose)[0]).numpy()
    rays = (vertices - frustum.distance * axes(pose)[0, 2]).numpy()
    normals = mesh.vertex_normals()
    cosine = np.abs((normals * rays).sum(axis=1)) / np.linalg.norm(rays, axis=1)
    share = np.clip((_EDGE_ON[1] - cosine) / (_EDGE_ON[1] - _EDGE_ON[0]), 0, 1) * (np.abs(missed) < _SNAPPED)
    moved = mesh.vertices + normals * (share * missed * 2 / cells)[:, None]
    return Mesh(moved, mesh.faces, mesh.texture)

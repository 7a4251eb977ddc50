"""What a camera sees, as another one at the same place sees it: other lenses and directions, and nothing of parallax.

Models are trained with one lens at one distance. Whatever camera is wanted, they are asked for the view from its place
that is framed as they know it, and what they make of that view is carried over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import asin, degrees

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mv3d.cameras import STEEPEST_DEG, Camera

_ALIKE = 1e-6  # of a matrix, and parts of a picture's width
_SIDEWAYS = 1e-6  # sine between a camera's up and where the origin is


def framing_camera(camera: Camera, object_radius: float, size_px: int) -> Camera:
    """The camera at the same place whose square picture just fits a sphere around the origin.

    It is upright, unless it looks along the world's Z: then its up is the given camera's.

    Raises:
        ValueError: if it stands in the sphere.
    """
    if camera.radius <= object_radius:
        raise ValueError(f"a camera {camera.radius:g} from the origin stands in a sphere of radius {object_radius:g}")
    fov_deg = degrees(2 * asin(object_radius / camera.radius))
    elevation_deg = camera.elevation_deg
    steep = abs(elevation_deg) > STEEPEST_DEG
    place = camera.azimuth_deg, 0.0 if steep else elevation_deg, camera.radius
    upright = Camera.looking_at_origin(*place, size_px=size_px, fov_deg=fov_deg)
    if not steep:
        return upright
    backward = camera.position / camera.radius
    right = np.cross(camera.world_from_cam[:3, 1], backward)
    if np.linalg.norm(right) < _SIDEWAYS:
        right = camera.world_from_cam[:3, 0]
    right = right / np.linalg.norm(right)
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = np.stack([right, np.cross(backward, right), backward], axis=1)
    world_from_cam[:3, 3] = camera.position
    return replace(upright, world_from_cam=world_from_cam)


def squared(camera: Camera) -> Camera:
    """The camera of the square picture in whose middle another one's is, see `middle_of`."""
    size_px = max(camera.width_px, camera.height_px)
    cx_px = camera.cx_px + (size_px - camera.width_px) // 2
    cy_px = camera.cy_px + (size_px - camera.height_px) // 2
    return replace(camera, width_px=size_px, height_px=size_px, cx_px=cx_px, cy_px=cy_px)


def middle_of(
    views: Float[Tensor, "N C S S"], width_px: int, height_px: int
) -> Float[Tensor, "N C {height_px} {width_px}"]:
    """What views (N, C, S, S) of a `squared` camera show of the oblong one's picture."""
    left, upper = (views.shape[-1] - width_px) // 2, (views.shape[-2] - height_px) // 2
    return views[..., upper : upper + height_px, left : left + width_px]


def is_alike(camera: Camera, other: Camera) -> bool:
    """Whether two cameras show the same, but for their pictures' size."""
    ours, theirs = (
        (c.focal_px / c.width_px, c.cx_px / c.width_px, c.cy_px / c.width_px, c.height_px / c.width_px)
        for c in (camera, other)
    )
    moved = np.abs(camera.world_from_cam - other.world_from_cam).max()
    return max(moved, np.abs(np.subtract(ours, theirs)).max()) < _ALIKE


def reframed(
    views: Float[Tensor, "N C H W"], cameras: Sequence[Camera], wanted: Sequence[Camera]
) -> Float[Tensor, "N C h w"]:
    """Views (N, C, H, W) as cameras at the same places with pictures of one size see them, and 0 beyond their frames.

    Pixels are looked up bilinearly; where ``wanted`` show less than half as large, views ought to be smaller first.
    """
    grids = []
    for camera, other in zip(cameras, wanted, strict=True):
        far = camera.position + other.directions(other.pixel_grid())
        pixels, depth = camera.project(far)
        uv = pixels / np.array([camera.width_px / 2, camera.height_px / 2]) - 1
        grids.append(np.where(depth[..., None] > 0, uv, 2.0))  # behind the camera: outside
    grid = torch.from_numpy(np.stack(grids)).to(views)
    return F.grid_sample(views, grid, align_corners=False, padding_mode="zeros")

"""True depth maps fused to a surface: what a lifter could reach at best with these views and this grid.

A truncated signed distance, averaged over the views (Curless and Levoy 1996, sections 3 and 4). Where no view looks,
behind every surface that is seen, the silhouettes' hull stands, as it does for the lifter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mv3d.cameras import Camera
from mv3d.depth import Depth
from mv3d.lift import LiftSettings, paint_surface
from mv3d.lift.hull import make_hull
from mv3d.lift.silhouettes import cut_out_views
from mv3d.lift.surface import extract_surface
from mv3d.lift.views import SilhouetteViews
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit

VERSION = 1
"""Raised when its meshes change."""
_TRUNCATION = 2.0
"""Grid cells: as far behind a surface as a view has a say, and as far in front as its say grows."""


def lift_true_depth(orbit: Orbit, depth: Depth, settings: LiftSettings) -> Mesh:
    """Fuse depth maps (N, H, W), 0 where nothing is, on the lifter's grid; extract and colour as it does."""
    orbit = cut_out_views(orbit)
    views = SilhouetteViews(orbit.frames[..., 3], orbit.cameras)
    grid, hull = make_hull(views, settings.resolution)
    near = np.flatnonzero(hull > -_TRUNCATION * grid.spacing)
    points = grid.points(grid.indices[near])
    fused = hull.reshape(-1).copy()
    fused[near] = fuse_depth(points, depth, orbit.cameras, _TRUNCATION * grid.spacing, fused[near])
    surface = extract_surface(fused.reshape(hull.shape), grid, settings.faces)
    return paint_surface(surface, orbit, views, settings, slack=2 * grid.spacing)


def fuse_depth(
    points: NDArray[np.float64],
    depth: Depth,
    cameras: Sequence[Camera],
    truncation: float,
    unseen: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The signed distance (P,) at points (P, 3), world units, positive inside; ``unseen`` (P,) where no view looks."""
    total = np.zeros(len(points))
    weight = np.zeros(len(points))
    for picture, camera in zip(depth, cameras, strict=True):
        pixels, along = camera.project(points)
        on_picture = ((pixels >= 0) & (pixels < [camera.width_px, camera.height_px])).all(axis=1)
        first = _first_surface(picture, pixels, truncation)
        behind = along - np.where(first > 0, first, np.inf)
        seen = on_picture & (behind < truncation)
        total += np.where(seen, np.clip(behind, -truncation, truncation), 0)
        weight += seen
    return np.where(weight > 0, total / np.maximum(weight, 1), unseen).astype(np.float32)


def _first_surface(picture: NDArray[np.float32], pixels: NDArray[np.float64], smooth: float) -> NDArray[np.float64]:
    """Depth at pixel positions (P, 2): interpolated where all around differ by less than ``smooth``."""
    at = pixels.T[::-1] - 0.5
    spread = ndimage.maximum_filter(picture, size=3) - ndimage.minimum_filter(picture, size=3)
    nearest, linear = (ndimage.map_coordinates(picture, at, order=order, mode="nearest") for order in (0, 1))
    is_smooth = ndimage.map_coordinates(spread, at, order=0, mode="nearest") < smooth
    return np.where(is_smooth, linear, nearest)

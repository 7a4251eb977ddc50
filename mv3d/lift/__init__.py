"""Lifting: from an orbit's views to a closed, coloured mesh."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mv3d.errors import Mv3dError
from mv3d.lift.colour import bake_texture
from mv3d.lift.hull import make_hull
from mv3d.lift.silhouettes import find_alpha
from mv3d.lift.surface import extract_surface, unwrap
from mv3d.lift.views import SilhouetteViews
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit

_FEWEST_VIEWS = 3
_TEXELS_PER_PIXEL = 1.5


@dataclass(frozen=True)
class LiftSettings:
    """How finely to lift."""

    resolution: int = 160
    """Grid cells along the object's longest side; 16 to 512."""


def lift_orbit(orbit: Orbit, settings: LiftSettings = LiftSettings()) -> Mesh:
    """Lift views to a watertight, textured mesh in the orbit's own world and scale.

    Shape comes from the silhouettes (hull.py), colour from the frames (colour.py). What no silhouette shows, such as
    the seat of an armchair seen from its own height, stays filled.

    Raises:
        Mv3dError: if there are too few views, one without an object, or silhouettes that no body could have.
    """
    if len(orbit) < _FEWEST_VIEWS:
        raise Mv3dError(f"an orbit of {len(orbit)} view(s) cannot be lifted: at least {_FEWEST_VIEWS} are needed")
    if not 16 <= settings.resolution <= 512:
        raise Mv3dError(f"resolution {settings.resolution} is outside 16 to 512 cells")
    views = SilhouetteViews(find_alpha(orbit), orbit.cameras)
    grid, field = make_hull(views, settings.resolution)
    surface = extract_surface(field, grid)
    corner_uv, size_px = unwrap(surface, _TEXELS_PER_PIXEL / views.pixel_size)
    return replace(surface, texture=bake_texture(surface, corner_uv, size_px, orbit, views, slack=2 * grid.spacing))

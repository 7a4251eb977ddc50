"""Lifting: from an orbit's views to a closed, coloured mesh."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mv3d.errors import Mv3dError
from mv3d.lift.colour import bake_texture
from mv3d.lift.hull import make_hull
from mv3d.lift.normal_map import bake_normals
from mv3d.lift.silhouettes import cut_out_views
from mv3d.lift.surface import extract_surface, simplify_surface, smoothed
from mv3d.lift.texels import Texels
from mv3d.lift.unwrap import unwrap
from mv3d.lift.views import SilhouetteViews
from mv3d.mesh import Mesh, Texture
from mv3d.orbit import Orbit
from mv3d.progress import OnStep, begin_stage

Method = Literal["field", "hull"]

_FEWEST_VIEWS = 3
_SMOOTHING_PASSES = 6  # the grid's steps would be cut into hundreds of charts; Chamfer and IoU stay
_SLACK_PX = 3  # how far a surface that the views were drawn from may be off
_NORMALS_PX = 1024  # of a normal map at most: a finer surface's cells are larger than its texels then
_PREVIEW = {"method": "hull", "resolution": 64, "faces": 4000, "texture_px": 512}


@dataclass(frozen=True)
class LiftSettings:
    """How to lift."""

    method: Method = "field"
    """``field`` fits a surface to silhouettes and colours (fit.py); ``hull`` takes the silhouettes alone (hull.py)."""
    resolution: int = 160
    """Grid cells along the object's longest side; 16 to 512."""
    faces: int = 30_000
    """Triangles at most; at least 100."""
    texture_px: int = 1024
    """Sides of the texture; 64 to 8192."""
    delight: bool = False
    """Whether the light that the views show is taken out of the texture, see `mv3d.lift.delight`."""
    device: str = "cpu"
    """Where the field is fitted, as torch names it."""

    def __post_init__(self) -> None:
        limits = {"resolution": (16, 512), "faces": (100, 10_000_000), "texture_px": (64, 8192)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                option = {"texture_px": "texture_size"}.get(name, name)
                raise Mv3dError(f"{option} {getattr(self, name)} is outside {low} to {high}", argument=option)

    def preview(self) -> LiftSettings:
        """The quick version: the hull, coarsely."""
        return replace(self, **_PREVIEW)


def lift_orbit(orbit: Orbit, settings: LiftSettings = LiftSettings(), on_step: OnStep | None = None) -> Mesh:
    """Lift views to a watertight, textured mesh in the orbit's own world and scale.

    Args:
        orbit: at least three views, cut out or on a plain background.
        settings: how.
        on_step: called with the stage, surface or texture, its steps done and in all.

    Raises:
        Mv3dError: if there are too few views, one without an object, or silhouettes that no body could have.
    """
    if len(orbit) < _FEWEST_VIEWS:
        raise Mv3dError(f"an orbit of {len(orbit)} view(s) cannot be lifted: at least {_FEWEST_VIEWS} are needed")
    report = begin_stage(on_step, "surface")
    orbit = cut_out_views(orbit)
    views = SilhouetteViews(orbit.frames[..., 3], orbit.cameras)
    if settings.method == "hull":
        grid, field = make_hull(views, settings.resolution)
    else:
        import torch

        from mv3d.lift.fit import fit_surface

        grid, field = fit_surface(views, orbit.frames, settings.resolution, torch.device(settings.device), report)
    # Not all of the grid's triangles: their normals are no nearer to the truth, by the steps of the grid.
    finer = smoothed(extract_surface(field, grid), _SMOOTHING_PASSES)
    surface = simplify_surface(finer, settings.faces)
    begin_stage(on_step, "texture")
    return paint_surface(surface, orbit, views, settings, slack=2 * grid.spacing, finer=finer)


def texture_surface(
    surface: Mesh, orbit: Orbit, settings: LiftSettings = LiftSettings(), on_step: OnStep | None = None
) -> Mesh:
    """Texture a closed surface that stands in the world of an orbit of cut-out frames, from its views.

    It is simplified to the triangles that ``settings`` allow, and the normals that it loses are kept in a map; their
    texture's size is heeded too, nothing else of them. ``on_step`` is called as in `lift_orbit`.
    """
    begin_stage(on_step, "surface")
    views = SilhouetteViews(orbit.frames[..., 3], orbit.cameras)
    simple = simplify_surface(surface, settings.faces)
    begin_stage(on_step, "texture")
    return paint_surface(simple, orbit, views, settings, slack=_SLACK_PX * views.pixel_size, finer=surface)


def paint_surface(
    surface: Mesh,
    orbit: Orbit,
    views: SilhouetteViews,
    settings: LiftSettings,
    slack: float,
    finer: Mesh | None = None,
) -> Mesh:
    """Texture a surface from the views; of the settings, those of the texture are heeded.

    ``slack`` is how far (world units) the surface may be off without hiding itself. ``finer`` is what it was simplified
    from, if it was: the normals that were lost go into a map.
    """
    corner_uv = unwrap(surface, settings.texture_px)
    texels = Texels.of(corner_uv, settings.texture_px)
    pixels = bake_texture(surface, texels, orbit, views, slack, delight=settings.delight)
    normals = None
    if finer is not None and finer is not surface:
        few = min(settings.texture_px, _NORMALS_PX)
        texels = texels if few == settings.texture_px else Texels.of(corner_uv, few)
        normals = bake_normals(surface, corner_uv, finer, texels)
    return replace(surface, texture=Texture(pixels, corner_uv, normals))

"""The first stage whole: a picture becomes a surface, and the surface is drawn from every camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import degrees, radians
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mv3d.cameras import Camera
from mv3d.mesh import Mesh
from mv3d.model.carving import CarvedSolid
from mv3d.model.coarse import CoarseNet, Pictures
from mv3d.model.drawing import Coloured, draw_views, filled_colours, frame_radius
from mv3d.model.field_smoothing import smoothed_field
from mv3d.model.fused_fields import FusedFields, TurnedField
from mv3d.model.posed_picture import PosedPicture
from mv3d.model.surface import extract_field

ELEVATIONS_DEG = (-10.0, 60.0)


@dataclass(frozen=True, eq=False)
class CoarseOrbit:
    """What the coarse stage makes of one picture."""

    surface: Mesh
    """Closed, without a texture, in the world and scale of the orbit's cameras."""
    views: Tensor
    """(V, 6, S, S) in [-1, 1], see `mv3d.model.drawing.draw_views`."""


@dataclass(frozen=True, eq=False)
class CoarseObject:
    """What the coarse stage makes of an object: a surface, and what it looks like."""

    surface: Mesh
    """Closed, without a texture, in frame radii."""
    coloured: Coloured
    field: Any
    pictures: tuple[PosedPicture, ...]
    """That the surface is painted with."""

    def draw(self, cameras: Sequence[Camera], size_px: int, radius: float | None = None) -> CoarseOrbit:
        """Look at it from cameras, by views of ``size_px``; ``radius`` as for `mv3d.model.drawing.draw_views`."""
        views = draw_views(self.coloured, self.field, self.surface, self.pictures, cameras, size_px, radius)
        return CoarseOrbit(self.mesh(frame_radius(cameras[0]) if radius is None else radius), views)

    def mesh(self, radius: float) -> Mesh:
        """The surface in a world of which one frame radius is so much."""
        return Mesh(self.surface.vertices * radius, self.surface.faces)


@torch.no_grad()
def estimate_elevation_deg(coarse: CoarseNet, picture: Tensor) -> float:
    """How many degrees the camera of a picture (4, S, S), straight RGBA, stands above its object.

    Within `ELEVATIONS_DEG`, as the pictures that it learnt from; the mean of the picture's and its mirror image's.
    """
    size_px = coarse.config.picture_px
    both = torch.stack([picture, picture.flip(-1)])
    if picture.shape[-1] != size_px:
        both = F.interpolate(both, (size_px, size_px), mode="bilinear", antialias=True)
    low, high = ELEVATIONS_DEG
    return min(max(degrees(coarse.estimate_elevation(both).mean().item()), low), high)


@torch.no_grad()
def find_object(network: CoarseNet, pictures: Sequence[PosedPicture]) -> CoarseObject:
    """Find the surface of an object that pictures show.

    Args:
        network: the coarse one. Of several pictures it completes each by itself; the fields are mixed, and the
            silhouettes of all carve (`mv3d.model.carving`).
        pictures: the first one's azimuth is 0; their pixels paint the surface.
    """
    first = pictures[0]
    solid = FusedFields(network)
    fields = [_flip_averaged(network, picture) for picture in pictures]
    surface = extract_field(
        solid if len(pictures) == 1 else CarvedSolid(solid, fields, pictures[1:]),
        fields,
        first.rgba[3],
        radians(first.elevation_deg),
    )
    return CoarseObject(surface, solid, fields, tuple(pictures))


def _flip_averaged(network: CoarseNet, picture: PosedPicture) -> TurnedField:
    wanted, rgba = network.config.picture_px, picture.rgba[None]
    small = rgba
    if picture.size_px != wanted:
        small = F.interpolate(rgba, (wanted, wanted), mode="bilinear", antialias=True)
    elevation_rad = torch.tensor([radians(picture.elevation_deg)], device=rgba.device)
    # Colours of the surface are looked up in it, at its rim too, beside which a cut-out is black.
    colours = filled_colours(rgba)
    poses = torch.stack([torch.zeros_like(elevation_rad), elevation_rad], dim=1)
    single = Pictures(small, poses, torch.zeros(1, dtype=torch.long, device=rgba.device))
    field = smoothed_field(network.flip_averaged(single))
    return TurnedField(field._replace(colours=colours), picture.azimuth_deg)


@torch.no_grad()
def make_coarse_orbit(network: CoarseNet, picture: Tensor, cameras: Sequence[Camera], size_px: int) -> CoarseOrbit:
    """Find the surface of a picture's object and draw it.

    Args:
        network: as of `find_object`.
        picture: (4, S, S), straight RGBA in [0, 1]; the first camera is its own.
        cameras: of the views.
        size_px: width and height of the views.
    """
    posed = PosedPicture(picture, 0.0, cameras[0].elevation_deg)
    return find_object(network, [posed]).draw(cameras, size_px)

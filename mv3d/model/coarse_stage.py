"""The first stage whole: a picture becomes a surface, and the surface is drawn from every camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import degrees, radians

import torch
import torch.nn.functional as F
from torch import Tensor

from mv3d.cameras import Camera
from mv3d.mesh import Mesh
from mv3d.model.autoencoder import Autoencoder, encode_frames, from_autoencoder
from mv3d.model.coarse import CoarseNet
from mv3d.model.drawing import draw_views, filled_colours, frame_radius
from mv3d.model.surface import extract_field
from mv3d.model.volume import CoarseVolume

ELEVATIONS_DEG = (-10.0, 60.0)
_ENCODE_AT_ONCE = 2  # frames: more of them leave a processor's caches


@dataclass(frozen=True, eq=False)
class CoarseOrbit:
    """What the coarse stage makes of one picture."""

    surface: Mesh
    """Closed, without a texture, in the world and scale of the orbit's cameras."""
    views: Tensor
    """(V, 6, S, S) in [-1, 1], see `mv3d.model.drawing.draw_views`."""

    def latents(self, vae: Autoencoder, resolution_px: int) -> Tensor:
        """Unscaled latents (V, C, h, w) of the views at the size that the autoencoder encodes."""
        small = F.avg_pool2d(self.views[:, :4], self.views.shape[-1] // resolution_px)
        parts = from_autoencoder(small).split(_ENCODE_AT_ONCE)
        return torch.cat([encode_frames(vae, part) for part in parts])


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
def make_coarse_orbit(volume: CoarseVolume, picture: Tensor, cameras: Sequence[Camera], size_px: int) -> CoarseOrbit:
    """Find the surface of a picture's object and draw it.

    Args:
        volume: the coarse network.
        picture: (4, S, S), straight RGBA in [0, 1]; the first camera is its own.
        cameras: of the views.
        size_px: width and height of the views.
    """
    elevation_rad = radians(cameras[0].elevation_deg)
    wanted = volume.config.picture_px
    small = picture[None]
    if picture.shape[-1] != wanted:
        small = F.interpolate(small, (wanted, wanted), mode="bilinear", antialias=True)
    field = volume.flip_averaged(small, torch.tensor([elevation_rad], device=picture.device))
    # Colours of the surface are looked up in it, at its rim too, beside which a cut-out is black.
    field = field._replace(picture=torch.cat([filled_colours(picture[None]), picture[None, 3:]], dim=1))
    surface = extract_field(volume, field, picture[3], elevation_rad)
    views = draw_views(volume, field, surface, picture, cameras, size_px)
    scale = frame_radius(cameras[0])
    return CoarseOrbit(Mesh(surface.vertices * scale, surface.faces), views)

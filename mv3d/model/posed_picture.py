"""A picture of an object, prepared for the networks, and where it was taken from."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from mv3d.cameras import Camera
from mv3d.pixels import resize

_OPAQUE = 0.5  # alpha from which there is a surface
_CLEAR = 0.1  # alpha of nothing at all, at most


@dataclass(frozen=True, eq=False)
class PosedPicture:
    """A cut-out picture, framed as the training views are.

    Its camera looks at the origin, with the usual lens; azimuths are told from the object's first picture.
    """

    rgba: Tensor
    """(4, S, S), straight, in [0, 1]."""
    azimuth_deg: float
    elevation_deg: float

    @property
    def size_px(self) -> int:
        """Width and height of the picture."""
        return self.rgba.shape[-1]

    @property
    def pose(self) -> Tensor:
        """(2,), azimuth and elevation in radians."""
        return torch.tensor([radians(self.azimuth_deg), radians(self.elevation_deg)])

    def camera(self, size_px: int) -> Camera:
        """Its camera, with a picture of a size."""
        return Camera.looking_at_origin(self.azimuth_deg, self.elevation_deg, size_px=size_px)

    def resized(self, size_px: int) -> PosedPicture:
        """The same picture, resampled."""
        return PosedPicture(resized(self.rgba, size_px), self.azimuth_deg, self.elevation_deg)


def resized(picture: Tensor, size_px: int) -> Tensor:
    """`mv3d.pixels.resize` of a picture (4, S, S) to a square, on its device."""
    if picture.shape[-1] == size_px:
        return picture
    small = resize(picture.permute(1, 2, 0).cpu().numpy(), size_px, size_px)
    return torch.from_numpy(small).permute(2, 0, 1).contiguous().to(picture.device)


def panes_closed(picture: Tensor) -> Tensor:
    """A picture (4, S, S) whose glass, half transparent and with the object around it, is opaque: it is a surface, too.

    Gaps, of which the picture shows nothing, stay, and so do the soft edges around them.
    """
    alpha = picture[3].cpu().numpy()
    around = ndimage.binary_fill_holes(alpha > _OPAQUE)
    glass = ndimage.binary_opening(around & (alpha > _CLEAR) & (alpha <= _OPAQUE), np.ones((3, 3)))
    glass = ndimage.binary_dilation(glass) & around
    closed = picture.clone()
    closed[3][torch.from_numpy(glass).to(picture.device)] = 1
    return closed

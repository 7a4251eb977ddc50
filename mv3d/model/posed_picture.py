"""A picture of an object, prepared for the networks, and where it was taken from."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians

import torch
from torch import Tensor

from mv3d.cameras import Camera
from mv3d.pixels import resize


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

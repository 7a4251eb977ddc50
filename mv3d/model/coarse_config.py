"""Sizes of the coarse network, and which of them it can have."""

from __future__ import annotations

from dataclasses import dataclass

from mv3d.cameras import DEFAULT_FOV_DEG
from mv3d.errors import Mv3dError

_LEVELS = 4
_MAX_PX = 4096
_MAX_WIDTH = 4096


@dataclass(frozen=True)
class CoarseConfig:
    """Sizes of the networks; they are stored beside the weights."""

    picture_px: int = 256
    backbone_px: int = 192
    """The backbone sees the picture at this size, a multiple of 32."""
    picture_channels: tuple[int, ...] = (80, 96, 112, 128)
    """Channels of the picture's features at 1/4, 1/8, 1/16 and 1/32 of that size."""
    fine_channels: int = 32
    """Channels of what is seen at the rays' own resolution."""
    rays_px: int = 128
    num_bins: int = 64
    image_channels: tuple[int, ...] = (24, 48, 96, 128)
    """Channels of the grid's own features of the picture, at 1/4, 1/8, 1/16 and 1/32 of its size."""
    grid_size: int = 32
    grid_channels: tuple[int, ...] = (32, 64, 128, 192)
    """Channels of the grid's features at 1, 1/2, 1/4 and 1/8 of its size."""
    fov_deg: float = DEFAULT_FOV_DEG

    def __post_init__(self) -> None:
        for name in ("picture_channels", "image_channels", "grid_channels"):
            widths = getattr(self, name)
            if len(widths) != _LEVELS:
                raise Mv3dError(f"{name} of a coarse network: {len(widths)} levels; give {_LEVELS}")
            for width in widths[:-1]:
                _check(name, width, 8, _MAX_WIDTH, multiple_of=8)  # norms have 8 groups
            _check(f"the last of {name}", widths[-1], 16, _MAX_WIDTH, multiple_of=16)  # of one pixel, perhaps
        _check("fine_channels", self.fine_channels, 4, _MAX_WIDTH, multiple_of=4)
        _check("picture_px", self.picture_px, 32, _MAX_PX, multiple_of=32)
        _check("backbone_px", self.backbone_px, 32, _MAX_PX, multiple_of=32)
        _check("grid_size", self.grid_size, 8, 512, multiple_of=8)
        _check("num_bins", self.num_bins, 2, 1024, multiple_of=2)
        _check("fov_deg", self.fov_deg, 1, 170)
        if 2 * self.rays_px != self.picture_px or self.rays_px % self.grid_size:
            raise Mv3dError(
                f"rays_px of a coarse network is {self.rays_px}; give half of picture_px, {self.picture_px}, and a "
                f"multiple of grid_size, {self.grid_size}"
            )


def _check(name: str, value: float, low: int, high: int, multiple_of: int = 1) -> None:
    if not low <= value <= high or (multiple_of > 1 and value % multiple_of):
        kind = f"a multiple of {multiple_of} " if multiple_of > 1 else ""
        raise Mv3dError(f"{name} of a coarse network is {value:g}; give {kind}from {low} to {high}")

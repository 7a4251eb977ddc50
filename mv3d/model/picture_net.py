"""What is understood of one picture in 2D: features of every size, occupancy along its rays, its camera's elevation."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mv3d.model.alpha import on_white, premultiplied
from mv3d.model.backbone import FEATURE_CHANNELS, Backbone
from mv3d.model.feature_net import ResidualBlock
from mv3d.model.frustum import pixel_uv

_RAY_WIDTH = 128
_GEOMETRY = 4  # place and normal of the first surface


class PictureFeatures(NamedTuple):
    """Of P pictures."""

    levels: list[Tensor]
    """(P, C, s, s) at 1/4, 1/8, 1/16 and 1/32 of the backbone's picture, finest first."""
    fine: Tensor
    """(P, C, R, R), of what is too fine for the backbone."""
    elevation_rad: Tensor
    """(P,), estimated, of their cameras."""
    ray_geometry: Tensor
    """(K, 4) of the rays that were asked: where the first surface is across the slices (`mv3d.model.frustum`), and its
    normal along their axes right, up and towards the camera, not of unit length."""


class PictureNet(nn.Module):
    """A backbone, a path back to 1/4 of its picture's size (FPN: Lin et al. 2017), and heads."""

    def __init__(
        self, backbone_px: int, channels: tuple[int, ...], rays_px: int, fine_channels: int, num_bins: int
    ) -> None:
        super().__init__()
        self._backbone_px, self._rays_px, self._num_bins = backbone_px, rays_px, num_bins
        self.backbone = Backbone()
        self.norms = nn.ModuleList(nn.GroupNorm(1, c) for c in FEATURE_CHANNELS)
        self.lateral = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(FEATURE_CHANNELS, channels, strict=True))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(channels, channels[1:], strict=False))
        self.blocks = nn.ModuleList(ResidualBlock(2, c) for c in channels)
        self.deepest = ResidualBlock(2, channels[-1])
        self.fine = nn.Sequential(
            nn.Conv2d(4, fine_channels, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(fine_channels, fine_channels, 3, padding=1),
            nn.GroupNorm(4, fine_channels),
            nn.SiLU(),
        )
        self.tilt = nn.Linear(2, channels[-1])
        self.ray_hidden = nn.Linear(channels[0] + fine_channels, _RAY_WIDTH)
        self.ray_place = nn.Linear(4, _RAY_WIDTH, bias=False)
        self.ray_out = nn.Linear(_RAY_WIDTH, num_bins + _GEOMETRY)
        self.elevation_head = nn.Sequential(nn.Linear(2 * FEATURE_CHANNELS[-1], 64), nn.SiLU(), nn.Linear(64, 1))
        nn.init.constant_(self.ray_out.bias, -1.0)
        for added in (self.tilt, self.ray_place):  # begin without what is known of the camera
            for parameter in added.parameters():
                nn.init.zeros_(parameter)

    def levels(self, rgba: Tensor) -> list[Tensor]:
        """The backbone's features of pictures (P, 4, S, S), straight RGBA, on white."""
        rgb = on_white(rgba)
        size = self._backbone_px
        if rgba.shape[-1] != size:
            rgb = F.interpolate(rgb, (size, size), mode="bilinear", antialias=rgba.shape[-1] > size)
        found = self.backbone((rgb * 2 - 1).contiguous(memory_format=torch.channels_last))
        if torch.is_grad_enabled():  # where the backbone is frozen; torch 2.13 crashes in a norm's gradient without
            found = [x if x.requires_grad else x.requires_grad_() for x in found]
        return found

    def elevation(self, deepest: Tensor) -> Tensor:
        """Elevation (P,) in radians from the coarsest features."""
        pooled = torch.cat([deepest.mean(dim=(2, 3)), deepest.amax(dim=(2, 3))], dim=1)
        return self.elevation_head(pooled)[:, 0].float()

    def forward(self, rgba: Tensor, elevation_rad: Tensor) -> PictureFeatures:
        """Understand pictures (P, 4, S, S), straight RGBA, of cameras (P,); S is twice the rays' resolution."""
        assert rgba.shape[-1] == 2 * self._rays_px, rgba.shape
        found = self.levels(rgba)
        entering = [lateral(norm(x)) for lateral, norm, x in zip(self.lateral, self.norms, found, strict=True)]
        tilt = self.tilt(torch.stack([elevation_rad.sin(), elevation_rad.cos()], dim=-1).to(rgba))
        x = self.deepest(self.blocks[-1](entering[-1] + tilt[:, :, None, None]))
        levels = [x]
        for k in reversed(range(len(self.up))):
            x = self.blocks[k](F.interpolate(self.up[k](x), scale_factor=2.0) + entering[k])
            levels.append(x)
        fine = self.fine((premultiplied(rgba) * 2 - 1).contiguous(memory_format=torch.channels_last))
        return PictureFeatures(levels[::-1], fine, self.elevation(found[-1]), fine.new_zeros(0, _GEOMETRY))

    def ask_rays(
        self, seen: PictureFeatures, elevation_rad: Tensor, picture: Tensor, row: Tensor, column: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (K, D) of the bins of K rays being full, and `PictureFeatures.ray_geometry`; cameras are (P,)."""
        size = (self._rays_px, self._rays_px)
        broad = F.interpolate(seen.levels[0], size, mode="bilinear").movedim(1, -1)[picture, row, column]
        found = torch.cat([broad, seen.fine.movedim(1, -1)[picture, row, column]], dim=-1)
        looking = torch.stack([elevation_rad.sin(), elevation_rad.cos()], dim=-1)[picture]
        place = torch.cat([pixel_uv(self._rays_px, row.device)[row, column], looking], dim=-1).to(found)
        out = self.ray_out(F.silu(self.ray_hidden(found) + self.ray_place(place))).float()
        return out[:, : self._num_bins], out[:, self._num_bins :]

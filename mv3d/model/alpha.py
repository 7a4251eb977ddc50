"""Straight and premultiplied alpha of tensors, channels before rows: the arithmetic of `mv3d.pixels` with gradients.

And the range of numbers that autoencoders take.

Porter and Duff, "Compositing digital images", 1984.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST_ALPHA = 1e-4  # below, colours are darkened rather than blown up


def on_white(rgba: Tensor) -> Tensor:
    """Lay straight-alpha frames (..., 4, H, W) in [0, 1] on white; returns (..., 3, H, W)."""
    rgb, alpha = rgba.split([3, 1], dim=-3)
    return rgb * alpha + (1 - alpha)


def premultiplied(rgba: Tensor) -> Tensor:
    """Colours of straight-alpha frames (..., 4, H, W) times their alpha, so that they can be averaged."""
    rgb, alpha = rgba.split([3, 1], dim=-3)
    return torch.cat([rgb * alpha, alpha], dim=-3)


def straight(rgba: Tensor) -> Tensor:
    """Invert `premultiplied`; where there is nothing, colours are black."""
    rgb, alpha = rgba.split([3, 1], dim=-3)
    return torch.cat([rgb / alpha.clamp(min=_LEAST_ALPHA), alpha], dim=-3)


def to_autoencoder(rgba: Float[Tensor, "N 4 H W"], num_channels: int) -> Float[Tensor, "N {num_channels} H W"]:
    """Straight alpha (N, 4, H, W) in [0, 1] to what an autoencoder of 3 or 4 channels reads, in [-1, 1]."""
    return torch.cat([on_white(rgba), rgba[:, 3:]], dim=1)[:, :num_channels] * 2 - 1


def from_autoencoder(x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N 4 H W"]:
    """Invert `to_autoencoder`; without an alpha channel the frames come back opaque."""
    x = (x / 2 + 0.5).clamp(0, 1)
    rgb, alpha = x[:, :3], x[:, 3:4] if x.shape[1] == 4 else torch.ones_like(x[:, :1])
    colours = (rgb - (1 - alpha)) / alpha.clamp(min=1e-3)
    return torch.cat([colours.clamp(0, 1), alpha], dim=1)

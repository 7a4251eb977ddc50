"""Straight and premultiplied alpha of tensors, channels before rows: the arithmetic of `mv3d.pixels` with gradients.

Porter and Duff, "Compositing digital images", 1984.
"""

from __future__ import annotations

import torch
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

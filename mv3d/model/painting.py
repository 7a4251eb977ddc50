"""Coarse views at the picture's full size, where the picture's own pixels are.

What is rendered is where each pixel's colour comes from. That changes slowly over a view, so few rays tell it and it is
enlarged; only then are colours looked up, as in deferred shading (Saito & Takahashi 1990). Details of the picture reach
the other views that way: sixteen by sixteen latents could not carry them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SOURCE_CHANNELS = 10
PAINTED_CHANNELS = 6
_LEAST_SHARE = 1e-4


def paint(sources: Tensor, picture: Tensor, size_px: int) -> Tensor:
    """Enlarge what was rendered of V views, and look their colours up in the picture.

    Args:
        sources: (V, 10, s, s), sums along each ray, weighted as its light is: all (alpha) 1, told colour times its
            share 3, share of the picture's pixel in front 1, its place times that share 2, share of a pixel elsewhere
            1, its place likewise 2. Places are in [-1, 1], +v down.
        picture: (4, S, S), straight RGBA in [0, 1], of any size.
        size_px: width and height of the result.

    Returns:
        (V, 6, size_px, size_px) in [-1, 1]: RGB on white, alpha, and the shares that were looked up in front and
        elsewhere.
    """
    large = F.interpolate(sources, (size_px, size_px), mode="bilinear", align_corners=False)
    alpha, told, front, front_uv, elsewhere, elsewhere_uv = large.split([1, 3, 1, 2, 1, 2], dim=1)
    colours = _filled(picture)
    rgb = told + _looked_up(colours, front, front_uv) + _looked_up(colours, elsewhere, elsewhere_uv)
    return torch.cat([rgb + 1 - alpha, alpha, front, elsewhere], dim=1).clamp(0, 1) * 2 - 1


def _looked_up(colours: Tensor, share: Tensor, weighted_uv: Tensor) -> Tensor:
    """A share (V, 1, S, S) of the colour at its mean place, (V, 3, S, S)."""
    uv = (weighted_uv / share.clamp(min=_LEAST_SHARE)).movedim(1, -1)
    return share * F.grid_sample(colours.expand(len(uv), -1, -1, -1), uv, align_corners=False, padding_mode="border")


def _filled(picture: Tensor) -> Tensor:
    """The picture's colours, (3, S, S), spread over its background: a mean place may lie between two true ones.

    By push and pull (Gortler et al. 1996, section 3.5): what a level lacks it has from the next coarser one.
    """
    levels = [torch.cat([picture[:3] * picture[3:], picture[3:]])[None]]
    while levels[-1].shape[-1] > 1:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True))
    below = levels[-1][:, :3] / levels[-1][:, 3:].clamp(min=_LEAST_SHARE)
    for level in reversed(levels[:-1]):
        alpha = level[:, 3:]
        below = F.interpolate(below, level.shape[-2:], mode="bilinear", align_corners=False)
        below = level[:, :3] + (1 - alpha) * below
    return below[0]

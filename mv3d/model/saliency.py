"""Which pixels of a picture are its object: U²-Net in its small form (Qin et al. 2020), with the authors' weights.

A U-Net each of whose blocks is a U-Net (the paper's figures 2 and 5). Batch norms are folded into the convolutions.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mv3d.model.weights import load_strict, load_weights

_WEIGHTS = Path(__file__).parents[1] / "checkpoints" / "matting"
_SIDE_PX = 320
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_WIDTH, _INNER_WIDTH = 64, 16
_DEPTHS = (7, 6, 5, 4)  # levels of the blocks while pictures shrink; two flat blocks follow
_FLAT_DILATIONS = (1, 2, 4, 8)


class SaliencyNet(nn.Module):
    """Pictures to maps of how much each pixel belongs to the salient object."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3] + [_WIDTH] * len(_DEPTHS)
        self.encoder = nn.ModuleList(_NestedU(depth, c) for depth, c in zip(_DEPTHS, widths, strict=False))
        self.encoder.extend([_Flat(_WIDTH), _Flat(_WIDTH)])
        self.decoder = nn.ModuleList([_Flat(2 * _WIDTH), *(_NestedU(depth, 2 * _WIDTH) for depth in _DEPTHS[::-1])])
        self.sides = nn.ModuleList(nn.Conv2d(_WIDTH, 1, 3, padding=1) for _ in self.encoder)
        self.fuse = nn.Conv2d(len(self.encoder), 1, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """Saliency (B, 1, H, W) in [0, 1] of pictures (B, 3, H, W) in [0, 1], best of 320 px."""
        x = (rgb - rgb.new_tensor(_MEAN)[:, None, None]) / rgb.new_tensor(_STD)[:, None, None]
        seen = []
        for block in self.encoder:
            x = block(x if not seen else _halved(seen[-1]))
            seen.append(x)
        made = [x]
        for block, beside in zip(self.decoder, seen[-2::-1], strict=True):
            made.append(block(torch.cat([_resized_to(made[-1], beside), beside], dim=1)))
        sides = [side(x) for side, x in zip(self.sides, made[::-1], strict=True)]
        return torch.sigmoid(self.fuse(torch.cat([_resized_to(side, sides[0]) for side in sides], dim=1)))


class _NestedU(nn.Module):
    """A residual block that is a U-Net of ``depth`` levels itself (RSU)."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.enter = _convolution(channels, _WIDTH)
        down = [
            _convolution(_WIDTH, _INNER_WIDTH),
            *(_convolution(_INNER_WIDTH, _INNER_WIDTH) for _ in range(depth - 2)),
        ]
        self.down = nn.ModuleList(down)
        self.bottom = _convolution(_INNER_WIDTH, _INNER_WIDTH, dilation=2)
        outs = [_INNER_WIDTH] * (depth - 2) + [_WIDTH]
        self.up = nn.ModuleList(_convolution(2 * _INNER_WIDTH, out) for out in outs)

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        seen = [self.down[0](entered)]
        for block in self.down[1:]:
            seen.append(block(_halved(seen[-1])))
        out = self.bottom(seen[-1])
        for block, beside in zip(self.up, seen[::-1], strict=True):
            out = block(torch.cat([_resized_to(out, beside), beside], dim=1))
        return out + entered


class _Flat(nn.Module):
    """The same at one resolution, with ever wider kernels (RSU-4F)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = _convolution(channels, _WIDTH)
        widths = [_WIDTH] + [_INNER_WIDTH] * (len(_FLAT_DILATIONS) - 1)
        self.down = nn.ModuleList(
            _convolution(c, _INNER_WIDTH, dilation) for c, dilation in zip(widths, _FLAT_DILATIONS, strict=True)
        )
        outs = [_INNER_WIDTH] * (len(_FLAT_DILATIONS) - 2) + [_WIDTH]
        self.up = nn.ModuleList(
            _convolution(2 * _INNER_WIDTH, out, dilation)
            for out, dilation in zip(outs, _FLAT_DILATIONS[-2::-1], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        entered = self.enter(x)
        seen = [entered]
        for block in self.down:
            seen.append(block(seen[-1]))
        out = seen.pop()
        for block, beside in zip(self.up, seen[:0:-1], strict=True):
            out = block(torch.cat([out, beside], dim=1))
        return out + entered


@torch.no_grad()
def find_salient(rgb: Tensor) -> Tensor:
    """How much each pixel of a picture (3, H, W) in [0, 1] belongs to its salient object, (H, W) in [0, 1]."""
    small = F.interpolate(rgb[None], (_SIDE_PX, _SIDE_PX), mode="bilinear", antialias=True).clamp(0, 1)
    small = small / small.amax().clamp(min=1e-6)  # as the authors' program does
    return _resized_to(_net()(small), rgb[None])[0, 0]


@cache
def _net() -> SaliencyNet:
    net = SaliencyNet()
    load_strict(net, load_weights(_WEIGHTS, torch.float32), str(_WEIGHTS))
    return net.eval()


def _convolution(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation), nn.ReLU())


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)


def _resized_to(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, other.shape[-2:], mode="bilinear", align_corners=False)

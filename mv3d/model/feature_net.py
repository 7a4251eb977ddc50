"""A small U-Net in two or three dimensions (Ronneberger et al. 2015), of which every level's features can be had."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """Features of a picture or a grid at its size / ``first_stride``, at half of that, at a quarter, and so on.

    Args:
        dims: 2 or 3.
        cin: channels of the input.
        channels: channels of the levels, finest first.
        first_stride: 2 halves the input first.
        injected: channels of features from outside that are added to the levels below the finest, on the way down.
    """

    def __init__(
        self, dims: int, cin: int, channels: tuple[int, ...], *, first_stride: int = 1, injected: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        overlap = first_stride - 1 if dims == 2 else 0  # in 3D it would cost as much as all the rest
        self.stem = conv(cin, channels[0], first_stride + 2 * overlap, stride=first_stride, padding=overlap)
        self.encode = nn.ModuleList(ResidualBlock(dims, c) for c in channels[:-1])
        self.down = nn.ModuleList(conv(a, b, 2, stride=2) for a, b in zip(channels, channels[1:], strict=False))
        self.middle = nn.Sequential(ResidualBlock(dims, channels[-1]), ResidualBlock(dims, channels[-1]))
        self.up = nn.ModuleList(conv(b, a, 1) for a, b in zip(channels, channels[1:], strict=False))
        self.decode = nn.ModuleList(ResidualBlock(dims, c) for c in channels[:-1])
        # The attribute's name is part of the keys of weights that are out in the world.
        self.tell = nn.ModuleList(conv(a, b, 1) for a, b in zip(injected, channels[1:], strict=False))

    def forward(self, x: Tensor, injected: Sequence[Tensor] = ()) -> list[Tensor]:
        """Features of every level, finest first; ``injected`` is for the levels below the finest, at their sizes."""
        x = self.stem(x)
        skips = []
        for level, (encode, down) in enumerate(zip(self.encode, self.down, strict=True)):
            x = encode(x)
            skips.append(x)
            x = down(x)
            if self.tell:
                x = x + self.tell[level](injected[level])
        x = self.middle(x)
        features = [x]
        for level in reversed(range(len(skips))):
            x = F.interpolate(self.up[level](x), scale_factor=2.0)
            x = self.decode[level](x + skips[level])
            features.append(x)
        return features[::-1]


class ResidualBlock(nn.Module):
    """Two normalised convolutions with a residual path, in two or three dimensions."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.conv1 = conv(channels, channels, 3, padding=1)
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv2 = conv(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, channels, ...) of the size of ``x``."""
        y = F.silu(self.norm1(self.conv1(x)))
        return F.silu(self.norm2(self.conv2(y)) + x)

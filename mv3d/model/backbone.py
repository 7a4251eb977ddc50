"""EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation, ReLU6) as a source of picture features.

Batch norms are part of the convolutions here: they were frozen, and a frozen one is a scale and a bias.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_STAGES = (  # blocks, kernel, stride of the first, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS = 32
_TAPS = (1, 2, 4, 6)  # stages whose output is given: the last of their size
FEATURE_CHANNELS = tuple(_STAGES[k][-1] for k in _TAPS)
"""Of the features at 1/4, 1/8, 1/16 and 1/32 of the picture's size."""


class Backbone(nn.Module):
    """Pictures (B, 3, S, S) in [-1, 1] to features (B, `FEATURE_CHANNELS`[k], S / 4 / 2^k, ...); 32 divides S."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _SameConv(3, _STEM_CHANNELS, 3, stride=2)
        stages, cin = [], _STEM_CHANNELS
        for count, kernel, stride, expansion, cout in _STAGES:
            blocks = []
            for k in range(count):
                blocks.append(_InvertedResidual(cin, cout, kernel, 1 if k else stride, expansion))
                cin = cout
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Features of every size, finest first."""
        x = F.relu6(self.stem(picture))
        features = []
        for k, stage in enumerate(self.stages):
            x = stage(x)
            if k in _TAPS:
                features.append(x)
        return features


class _InvertedResidual(nn.Module):
    """Expand, convolve each channel by itself, project (MobileNetV2: Sandler et al. 2018)."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = cin * expansion
        self.expand = nn.Conv2d(cin, wide, 1) if expansion > 1 else None
        self.depthwise = _SameConv(wide, wide, kernel, stride=stride, groups=wide)
        self.project = nn.Conv2d(wide, cout, 1)
        self._residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self._residual else y


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: where a stride leaves one pixel over, it goes to the right and below."""

    def __init__(self, cin: int, cout: int, kernel: int, *, stride: int, groups: int = 1) -> None:
        super().__init__(cin, cout, kernel, stride=stride, groups=groups, padding=kernel // 2 if stride == 1 else 0)
        self._left, self._right = (kernel - stride) // 2, (kernel - stride + 1) // 2

    def forward(self, input: Tensor) -> Tensor:
        if self.stride[0] > 1:
            input = F.pad(input, (self._left, self._right, self._left, self._right))
        return super().forward(input)

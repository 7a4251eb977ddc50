"""LPIPS, the learned perceptual distance, in plain torch.

Zhang, Isola, Efros, Shechtman, Wang: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018;
version 0.1 of the linear layers, on the AlexNet (Krizhevsky 2014) or VGG16 (Simonyan and Zisserman 2015) feature stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from eval.weights import FETCH_COMMAND, LpipsNet, lpips_file
from mv3d.errors import Mv3dError

LPIPS_VERSION = "0.1"
MIN_SIDE_PX = 32

_INPUT_SHIFT = (-0.030, -0.088, -0.188)  # ImageNet's mean and deviation, for pictures in [-1, 1]
_INPUT_SCALE = (0.458, 0.448, 0.450)

# A network is a sequence of stages, and the features after each stage are compared: a max-pool over so many pixels with
# stride 2 (0: none), then convolutions (out channels, kernel, stride, padding), each followed by a ReLU.
_Stage = tuple[int, tuple[tuple[int, int, int, int], ...]]
_ALEX: tuple[_Stage, ...] = (
    (0, ((64, 11, 4, 2),)),
    (3, ((192, 5, 1, 2),)),
    (3, ((384, 3, 1, 1),)),
    (0, ((256, 3, 1, 1),)),
    (0, ((256, 3, 1, 1),)),
)
_VGG: tuple[_Stage, ...] = (
    (0, ((64, 3, 1, 1),) * 2),
    (2, ((128, 3, 1, 1),) * 2),
    (2, ((256, 3, 1, 1),) * 3),
    (2, ((512, 3, 1, 1),) * 3),
    (2, ((512, 3, 1, 1),) * 3),
)
_STAGES: dict[LpipsNet, tuple[_Stage, ...]] = {"alex": _ALEX, "vgg": _VGG}


class Lpips(nn.Module):
    """The distance as a frozen network; gradients flow to the pictures, so it serves as a loss too."""

    shift: Tensor
    scale: Tensor

    def __init__(self, net: LpipsNet) -> None:
        """Lay out the network without its weights, which `load_lpips` brings."""
        super().__init__()
        self.net: LpipsNet = net
        self._stages = _STAGES[net]
        convolutions = [convolution for _, stage in self._stages for convolution in stage]
        inputs = [3, *(convolution[0] for convolution in convolutions[:-1])]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel, stride, padding)
            for before, (after, kernel, stride, padding) in zip(inputs, convolutions, strict=True)
        )
        self.lins = nn.ModuleList(nn.Conv2d(stage[-1][0], 1, 1, bias=False) for _, stage in self._stages)
        self.register_buffer("shift", torch.tensor(_INPUT_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_INPUT_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, pred: Tensor, truth: Tensor) -> Tensor:
        """Distances (B,) between pictures (B, 3, H, W) in [0, 1]; eq. 1 of the paper.

        Raises:
            Mv3dError: if the pictures are smaller than the network's last feature map allows.
        """
        assert pred.shape == truth.shape, (pred.shape, truth.shape)
        if min(pred.shape[-2:]) < MIN_SIDE_PX:
            height, width = pred.shape[-2:]
            raise Mv3dError(f"LPIPS needs pictures of at least {MIN_SIDE_PX} px a side, got {width}x{height}")
        distance = pred.new_zeros(len(pred))
        for linear, a, b in zip(self.lins, self._features(pred), self._features(truth), strict=True):
            distance = distance + linear((_normalise(a) - _normalise(b)).square()).mean(dim=(1, 2, 3))
        return distance

    def _features(self, pictures: Tensor) -> list[Tensor]:
        x = (2 * pictures - 1 - self.shift) / self.scale
        convolutions = iter(self.convs)
        compared = []
        for pool, stage in self._stages:
            if pool:
                x = F.max_pool2d(x, pool, stride=2)
            for _ in stage:
                x = F.relu(next(convolutions)(x))
            compared.append(x)
        return compared


def _normalise(features: Tensor) -> Tensor:
    # The constant under the root keeps the gradient finite where all channels are zero.
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt()


def load_lpips(net: LpipsNet, cache: Path | None = None) -> Lpips:
    """Load the genuine weights from the cache folder, frozen and in evaluation mode.

    Raises:
        Mv3dError: if the weights are not there; the message names the command that fetches them.
    """
    path = lpips_file(net, cache)
    if not path.is_file():
        raise Mv3dError(f"the weights of LPIPS ({net}) are not in {path.parent}; fetch them with: {FETCH_COMMAND}")
    model = Lpips(net)
    model.load_state_dict(load_file(path))
    return model


def load_present(nets: Sequence[LpipsNet]) -> tuple[list[Lpips], list[LpipsNet]]:
    """Load the networks whose weights are in the cache, onto the GPU if there is one, and name the others."""
    absent: list[LpipsNet] = [net for net in nets if not lpips_file(net).is_file()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [load_lpips(net).to(device) for net in nets if net not in absent], absent

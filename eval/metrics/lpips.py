"""LPIPS, the learned perceptual distance, in plain torch.

Zhang, Isola, Efros, Shechtman, Wang: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018;
version 0.1 of the linear layers, on the feature stack of AlexNet (Krizhevsky 2014), VGG16 (Simonyan and Zisserman 2015)
or SqueezeNet 1.1 (Iandola et al. 2016).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from eval.metrics.weights import FETCH_COMMAND, LpipsNet, lpips_file, packaged_weights, packages_have
from mv3d.errors import Mv3dError

LPIPS_VERSION = "0.1"
MIN_SIDE_PX = 32

_INPUT_SHIFT = (-0.030, -0.088, -0.188)  # ImageNet's mean and deviation, for pictures in [-1, 1]
_INPUT_SCALE = (0.458, 0.448, 0.450)

# A network is a sequence of stages, and the features after each stage are compared: a max-pool over so many pixels with
# stride 2 (0: none), then layers, each followed by a ReLU: a convolution (out channels, kernel, stride, padding), or a
# fire module (squeezed channels, expanded channels): a 1x1 convolution and then, side by side, a 1x1 and a 3x3 one.
_Layer = tuple[int, int, int, int] | tuple[int, int]
_Stage = tuple[int, tuple[_Layer, ...]]
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
_SQUEEZE: tuple[_Stage, ...] = (
    (0, ((64, 3, 2, 0),)),
    (3, ((16, 64),) * 2),
    (3, ((32, 128),) * 2),
    (3, ((48, 192),)),
    (0, ((48, 192),)),
    (0, ((64, 256),)),
    (0, ((64, 256),)),
)
_STAGES: dict[LpipsNet, tuple[_Stage, ...]] = {"alex": _ALEX, "vgg": _VGG, "squeeze": _SQUEEZE}


class Lpips(nn.Module):
    """The distance as a frozen network; gradients flow to the pictures, so it serves as a loss too."""

    shift: Tensor
    scale: Tensor

    def __init__(self, net: LpipsNet) -> None:
        """Lay out the network without its weights, which `load_lpips` brings."""
        super().__init__()
        self.net: LpipsNet = net
        self._stages = _STAGES[net]
        layers = [layer for _, stage in self._stages for layer in stage]
        inputs = [3, *(_out_channels(layer) for layer in layers[:-1])]
        plain = [_convolutions(before, layer) for before, layer in zip(inputs, layers, strict=True)]
        self.convs = nn.ModuleList(convolution for convolutions in plain for convolution in convolutions)
        self.lins = nn.ModuleList(nn.Conv2d(_out_channels(stage[-1]), 1, 1, bias=False) for _, stage in self._stages)
        self.register_buffer("shift", torch.tensor(_INPUT_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_INPUT_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def key(self) -> str:
        """The metric's name."""
        return f"lpips_{self.net}"

    def forward(self, pred: Tensor, truth: Tensor) -> Tensor:
        """Distances (B,) between pictures (B, 3, H, W) in [0, 1]; eq. 1 of the paper.

        Raises:
            Mv3dError: if the pictures are smaller than the network's last feature map allows.
        """
        assert pred.shape == truth.shape, (pred.shape, truth.shape)
        return self.compare(self.features(pred), self.features(truth))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What `compare` takes of pictures (B, 3, H, W) in [0, 1]: each stage's features, of unit length per pixel.

        Raises:
            Mv3dError: if the pictures are smaller than the network's last feature map allows.
        """
        if min(pictures.shape[-2:]) < MIN_SIDE_PX:
            height, width = pictures.shape[-2:]
            raise Mv3dError(f"LPIPS needs pictures of at least {MIN_SIDE_PX} px a side, got {width}x{height}")
        # To [-1, 1] and through ImageNet's mean and deviation, in one pass.
        x = torch.addcmul(-(1 + self.shift) / self.scale, pictures, 2 / self.scale)
        convolutions = iter(self.convs)
        compared = []
        for pool, stage in self._stages:
            if pool:
                x = F.max_pool2d(x, pool, stride=2, ceil_mode=self.net == "squeeze")
            for layer in stage:
                x = next(convolutions)(x).relu_()
                if len(layer) == 2:
                    x = torch.cat([next(convolutions)(x).relu_(), next(convolutions)(x).relu_()], dim=1)
            compared.append(_normalise(x))
        return compared

    def compare(self, pred: list[Tensor], truth: list[Tensor]) -> Tensor:
        """Distances (B,) between what `features` made of two lots of pictures."""
        distance = pred[0].new_zeros(len(pred[0]))
        for linear, a, b in zip(self.lins, pred, truth, strict=True):
            distance = distance + linear((a - b).square_()).mean(dim=(1, 2, 3))
        return distance


def _out_channels(layer: _Layer) -> int:
    return 2 * layer[1] if len(layer) == 2 else layer[0]


def _convolutions(before: int, layer: _Layer) -> list[nn.Conv2d]:
    if len(layer) == 2:
        squeezed, expanded = layer
        sizes = [(before, squeezed, 1, 0), (squeezed, expanded, 1, 0), (squeezed, expanded, 3, 1)]
        return [nn.Conv2d(inputs, outputs, kernel, padding=padding) for inputs, outputs, kernel, padding in sizes]
    after, kernel, stride, padding = layer
    return [nn.Conv2d(before, after, kernel, stride, padding)]


def _normalise(features: Tensor) -> Tensor:
    # The constant under the root keeps the gradient finite where all channels are zero.
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt()


def load_lpips(net: LpipsNet, cache: Path | None = None) -> Lpips:
    """Load the genuine weights, frozen and in evaluation mode: from the cache folder, or the packages that have them.

    Raises:
        Mv3dError: if the weights are in neither; the message names the command that fetches them.
    """
    path = lpips_file(net, cache)
    if path.is_file():
        weights = load_file(path)
    elif packages_have(net):
        weights = {name: torch.from_numpy(value) for name, value in packaged_weights(net).items()}
    else:
        raise Mv3dError(f"the weights of LPIPS ({net}) are not in {path.parent}; fetch them with: {FETCH_COMMAND}")
    model = Lpips(net)
    model.load_state_dict(weights)
    return model

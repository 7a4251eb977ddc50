"""DISTS, the distance of deep image structure and texture, in plain torch.

Ding, Ma, Wang, Simoncelli: Image Quality Assessment: Unifying Structure and Texture Similarity, 2020; on the VGG16 that
LPIPS uses, its max-pools replaced by blurred ones (eq. 2), and the picture itself as the first feature map.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from eval.metrics.weights import FETCH_COMMAND, dists_file, lpips_file
from mv3d.errors import Mv3dError

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CONVS_PER_STAGE = (2, 2, 3, 3, 3)
_CHANNELS = (3, 64, 128, 256, 512, 512)
_C1 = _C2 = 1e-6
_BLUR_PX = 3


class Dists(nn.Module):
    """The distance as a frozen network."""

    key = "dists"
    mean: Tensor
    std: Tensor
    blur: Tensor

    def __init__(self) -> None:
        """Lay out the network without its weights, which `load_dists` brings."""
        super().__init__()
        inputs = 3
        self.convs = nn.ModuleList()
        for count, channels in zip(_CONVS_PER_STAGE, _CHANNELS[1:], strict=True):
            for _ in range(count):
                self.convs.append(nn.Conv2d(inputs, channels, 3, padding=1))
                inputs = channels
        self.alpha = nn.Parameter(torch.ones(sum(_CHANNELS)))
        self.beta = nn.Parameter(torch.ones(sum(_CHANNELS)))
        hann = torch.from_numpy(np.hanning(_BLUR_PX + 2)[1:-1].astype(np.float32))
        self.register_buffer("blur", torch.outer(hann, hann) / hann.sum() ** 2, persistent=False)
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def features(self, pictures: Tensor) -> list[Tensor]:
        """The feature maps of pictures (B, 3, H, W) in [0, 1], the pictures first."""
        x = (pictures - self.mean) / self.std
        compared, convolutions = [pictures], iter(self.convs)
        for stage, count in enumerate(_CONVS_PER_STAGE):
            if stage:
                window = self.blur.expand(x.shape[1], 1, _BLUR_PX, _BLUR_PX)
                x = (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()
            for _ in range(count):
                x = F.relu(next(convolutions)(x))
            compared.append(x)
        return compared

    def compare(self, pred: list[Tensor], truth: list[Tensor]) -> Tensor:
        """Distances (B,) between what `features` made of two lots of pictures (eq. 5 to 8)."""
        total = self.alpha.sum() + self.beta.sum()
        similarity = pred[0].new_zeros(len(pred[0]))
        alphas, betas = self.alpha.split(_CHANNELS), self.beta.split(_CHANNELS)
        for alpha, beta, x, y in zip(alphas, betas, pred, truth, strict=True):
            mean_x, mean_y = x.mean(dim=(2, 3)), y.mean(dim=(2, 3))
            var_x = (x - mean_x[..., None, None]).square().mean(dim=(2, 3))
            var_y = (y - mean_y[..., None, None]).square().mean(dim=(2, 3))
            covariance = (x * y).mean(dim=(2, 3)) - mean_x * mean_y
            texture = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
            structure = (2 * covariance + _C2) / (var_x + var_y + _C2)
            similarity = similarity + (alpha * texture + beta * structure).sum(dim=1)
        return 1 - similarity / total


def load_dists(cache: Path | None = None) -> Dists:
    """Load the genuine weights from the cache folder, frozen and in evaluation mode.

    Raises:
        Mv3dError: if the weights are not there; the message names the command that fetches them.
    """
    files = (dists_file(cache), lpips_file("vgg", cache))
    if not all(path.is_file() for path in files):
        raise Mv3dError(f"the weights of DISTS are not in {files[0].parent}; fetch them with: {FETCH_COMMAND}")
    weights, vgg = (load_file(path) for path in files)
    model = Dists()
    model.load_state_dict(weights | {name: value for name, value in vgg.items() if name.startswith("convs.")})
    return model

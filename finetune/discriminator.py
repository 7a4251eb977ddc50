"""A discriminator of patches (Isola et al. 2017; Esser et al. 2021 for autoencoders): does a patch look true?

LPIPS does not mind nets of fine lines, which nobody takes for a surface; a discriminator learns to see them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """Frames (N, 4, S, S), RGB on white and alpha in [0, 1], to a verdict on patches of 38 pixels, (N, 1, S/8, S/8)."""

    def __init__(self, channels: tuple[int, int, int] = (32, 64, 128)) -> None:
        super().__init__()
        first, second, third = channels
        self.layers = nn.Sequential(
            nn.Conv2d(4, first, 4, stride=2, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            nn.GroupNorm(8, second),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(second, third, 4, stride=2, padding=1),
            nn.GroupNorm(8, third),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(third, 1, 3, padding=1),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Positive where a patch is taken for a true one."""
        return self.layers(frames * 2 - 1)

    def discriminator_loss(self, made: Tensor, true: Tensor) -> Tensor:
        """What the discriminator minimises, the hinge loss (Lim & Ye 2017); frames get no gradients of it."""
        return F.relu(1 - self(true)).mean() + F.relu(1 + self(made.detach())).mean()

    def generator_loss(self, made: Tensor) -> Tensor:
        """What those who make the frames minimise; the discriminator gets no gradients of it."""
        self.requires_grad_(False)
        verdict = self(made)
        self.requires_grad_(True)
        return -verdict.mean()


def adaptive_weight(reconstruction: Tensor, generator: Tensor, made: Tensor) -> Tensor:
    """The weight that makes the generator loss's gradient by the frames as long as that of the reconstruction loss.

    After Esser et al. 2021, equation 7, there by the decoder's last layer.
    A discriminator's gradient grows with its weights; so weighted it never drowns what the frames are compared with.
    """
    losses = (reconstruction, generator)
    norms = [torch.autograd.grad(loss, made, retain_graph=True)[0].norm() for loss in losses]
    return (norms[0] / norms[1].clamp(min=1e-8)).detach()

"""Losses on decoded frames beside EDM's on latents: LPIPS, pixels, a discriminator. They make few steps sharp."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.diffusion_config import DiffusionStage
from finetune.discriminator import PatchDiscriminator, adaptive_weight
from mv3d.model.alpha import to_autoencoder
from mv3d.model.autoencoder import Autoencoder, decode

if TYPE_CHECKING:
    from finetune.clips import ClipBatch


class DecodedLosses(NamedTuple):
    """The losses of some decoded frames."""

    frames: Tensor
    """Minimised by those who make the frames: reconstruction, and the generator's part against the discriminator."""
    discriminator: Tensor | None
    """Minimised by the discriminator, where there is one."""
    metrics: dict[str, Tensor]
    """Parts of both, for the log."""


class DecodedLoss(nn.Module):
    """How far a few decoded frames of each clip are from the true ones."""

    def __init__(
        self, config: DiffusionStage, vae: Autoencoder, lpips: nn.Module, discriminator: PatchDiscriminator | None
    ) -> None:
        super().__init__()
        self._config = config
        self._vae, self._lpips, self._discriminator = vae, lpips, discriminator

    def forward(self, estimate: Tensor, clips: ClipBatch, which: Tensor) -> DecodedLosses:
        """The losses of some frames of every clip.

        Args:
            estimate: (B, F, C, h, w) denoised latents, unscaled.
            clips: what is true, and the coarse views.
            which: (B, n) frames of each clip.
        """
        assert clips.frames is not None
        device = estimate.device  # of what is on the CPU, only what is compared goes there
        truth = to_autoencoder(_picked(clips.frames, which).to(device), 4) / 2 + 0.5
        views = None if clips.views is None else _picked(clips.views, which).to(device)
        output = decode(self._vae, _picked(estimate, which.to(device)), views).float() / 2 + 0.5
        return self.of_frames(output, truth, None if views is None else views[:, :4] / 2 + 0.5)

    def of_frames(self, output: Tensor, truth: Tensor, views: Tensor | None = None) -> DecodedLosses:
        """The losses of decoded frames.

        Frames have the shape of their coarse views, where there are any. Colours are then compared with the true ones
        where both shapes are, and with the view's own elsewhere; else a decoder would learn to whiten a surface that
        stands in the wrong place.

        Args:
            output: (N, 4, S, S), RGB on white and alpha, in [0, 1]; the others too.
            truth: (N, 4, S, S).
            views: (N, 4, S, S), for a decoder that sees views.
        """
        config, discriminator = self._config, self._discriminator
        metrics = {}
        strayed = output.new_zeros(())
        if views is not None:
            both = views[:, 3:] * truth[:, 3:]
            strayed = ((1 - both) * (output - views)).square().mean()
            output = truth + both * (output - truth)
        reconstruction = output.new_zeros(())
        if config.lpips_weight:
            metrics["lpips"] = self._lpips(output[:, :3], truth[:, :3]).mean()
            reconstruction = reconstruction + config.lpips_weight * metrics["lpips"]
        if config.pixel_weight:
            squared = F.mse_loss(output, truth)
            reconstruction = reconstruction + config.pixel_weight * (squared + strayed)
            metrics["psnr_rgba"] = -10 * squared.detach().log10().double()
        if discriminator is None:
            return DecodedLosses(reconstruction, None, metrics)
        own, generator = discriminator.discriminator_loss(output, truth), discriminator.generator_loss(output)
        weight = config.discriminator_weight * adaptive_weight(reconstruction, generator, output)
        metrics |= {"discriminator_loss": own, "generator_loss": generator, "adaptive_weight": weight}
        return DecodedLosses(reconstruction + weight * generator, own, metrics)


def _picked(values: Tensor, which: Tensor) -> Tensor:
    """Frames ``which`` (B, n) of each clip of (B, F, ...), as (B n, ...)."""
    return torch.cat([clip[chosen] for clip, chosen in zip(values, which, strict=True)])

"""Losses on decoded frames, beside EDM's on latents: LPIPS, pixels, a critic. Few steps of sampling are then sharp."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.clips import ClipBatch
from finetune.critic import PatchCritic, balance
from finetune.diffusion_config import DiffusionStage
from mv3d.model.autoencoder import Autoencoder, decode, to_autoencoder


class FrameLosses(NamedTuple):
    """What decoded frames say."""

    frames: Tensor
    """Minimised by those who make the frames."""
    critic: Tensor | None
    """Minimised by the critic, where there is one."""
    figures: dict[str, Tensor]
    """Parts of both, for the log."""


class DecodedLoss(nn.Module):
    """How far a few decoded frames of each clip are from the true ones."""

    def __init__(
        self, config: DiffusionStage, vae: Autoencoder, lpips: nn.Module, critic: PatchCritic | None = None
    ) -> None:
        super().__init__()
        self._config = config
        self._vae, self._lpips, self._critic = vae, lpips, critic

    def forward(self, estimate: Tensor, clips: ClipBatch, which: Tensor) -> FrameLosses:
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
        return self.of_frames(output, truth)

    def of_frames(self, output: Tensor, truth: Tensor) -> FrameLosses:
        """The losses of decoded frames (N, 4, S, S), RGB on white and alpha, in [0, 1]."""
        config = self._config
        figures = {}
        seen = output.new_zeros(())
        if config.lpips_weight:
            figures["lpips"] = self._lpips(output[:, :3], truth[:, :3]).mean()
            seen = seen + config.lpips_weight * figures["lpips"]
        if config.pixel_weight:
            squared = F.mse_loss(output, truth)
            seen = seen + config.pixel_weight * squared
            figures["psnr_rgba"] = -10 * squared.detach().log10().double()
        if self._critic is None:
            return FrameLosses(seen, None, figures)
        lesson, doubt = self._critic.lesson(output, truth), self._critic.doubt(output)
        weight = config.critic_weight * balance(seen, doubt, output)
        figures |= {"lesson": lesson, "doubt": doubt, "balance": weight}
        return FrameLosses(seen + weight * doubt, lesson, figures)


def _picked(values: Tensor, which: Tensor) -> Tensor:
    """Frames ``which`` (B, n) of each clip of (B, F, ...), as (B n, ...)."""
    return torch.cat([clip[chosen] for clip, chosen in zip(values, which, strict=True)])

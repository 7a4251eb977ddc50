"""Training Wan: flow matching, one noise level per clip, on videos that were encoded beforehand.

What `finetune.stages.diffusion` is for SVD's kind, with the same config: levels are drawn by ``p_mean`` and ``p_std``
of ln of noise to signal, and ``condition_dropout`` hides the words: guidance leads from none to these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from eval.metrics.lpips import load_lpips
from finetune.config import RunConfig
from finetune.data import RunOrbits
from finetune.photographs import framed_photographs
from finetune.processes import WHOLE, MicroBatch, Processes
from finetune.validation import score_sampled
from finetune.wan_clips import VideoBatch, WanClips
from finetune.wan_networks import make_wan_trainee
from mv3d.model.flow import draw_levels, flow_error


class FlowTraining:
    """Whole orbits, each beginning at one of its views; the transformer alone is trained, or a LoRA beside it."""

    divisible = True

    def __init__(self, config: RunConfig, processes: Processes | None = None) -> None:
        """Load the base, and encode orbits."""
        processes = processes or Processes()
        trainee = make_wan_trainee(config, processes.device)
        self._stage, self._device = config.diffusion, processes.device
        self.model = trainee.model
        self.network: nn.Module = trainee.networks
        orbits = RunOrbits.of_folders(config, self.model.facts.resolution_px)
        self._photographs = framed_photographs(config.pictures, self.model.facts.resolution_px)
        self.clips = WanClips(config, self.model, orbits, processes)
        self.images_per_sample = orbits.num_views
        # The autoencoder has done its work; on a small card it would be in the way.
        nn.Module.to(self.model.vae, "cpu")
        self._lpips = load_lpips("alex").to(self._device) if self.clips.used.num_validation else None

    def loss(self, step: int, generator: torch.Generator, part: MicroBatch = WHOLE) -> tuple[Tensor, dict[str, float]]:
        """The loss of a part of a batch of clips."""
        stage, size = self._stage, self._stage.loop.batch_size
        clips = self.clips.batch(step, part)
        # Drawn for the whole batch, whichever part of it is wanted.
        dropped = torch.rand(size, generator=generator)[part.slice] < stage.condition_dropout
        levels = draw_levels(size, stage.p_mean, stage.p_std, generator)[part.slice]
        noise = torch.randn(size, *clips.latents.shape[1:], generator=generator)[part.slice]
        return self._error(clips, levels, noise, dropped).mean(), {}

    def _error(self, clips: VideoBatch, levels: Tensor, noise: Tensor, dropped: Tensor | None = None) -> Tensor:
        conditions, device = clips.conditions, self._device
        if dropped is not None:
            without = self.model.prompt.padded(negative=True).to(device)
            prompt = torch.where(dropped.to(device)[:, None, None], without, conditions.prompt)
            conditions = replace(conditions, prompt=prompt)
        return flow_error(self.model.transformer, clips.latents, noise.to(device), levels.to(device), conditions)

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        return self.clips.object_ids(step)

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """Sample held-out orbits, and those of the config's pictures, with the averages, which ``network`` holds.

        Of held-out orbits: scores of samples, of all views but the input's, and what the loss is on them at fixed noise
        levels, with fixed noise: ``loss_0.83`` at level 0.83, and their mean, ``loss``.
        """
        assert network is self.network
        has_truth, orbits = self._lpips is not None, self.clips.orbits
        if not (has_truth or self._photographs):
            return {}
        lora, device = self._stage.lora, self._device.type
        mixed = lora is not None and lora.base_storage != "float32"  # products and norms would not fit together else
        nn.Module.to(self.model.vae, self._device)
        try:
            with torch.autocast(device, torch.bfloat16, enabled=mixed):
                held_out, pictures = orbits.held_out(), self._photographs
                scores = score_sampled(self.model, held_out, self._lpips, sheet, pictures, orbits.num_views)
            clips = self.clips.held_out() if has_truth else ()
        finally:
            nn.Module.to(self.model.vae, "cpu")
        if not has_truth:
            return {}
        with torch.autocast(device, torch.bfloat16, enabled=self._stage.loop.bfloat16):
            losses = {f"loss_{level:.2g}": self._held_out_loss(clips, level) for level in self._fixed_levels()}
        return scores | {"loss": sum(losses.values()) / len(losses)} | losses

    def _fixed_levels(self) -> list[float]:
        """Three of those that are drawn in training."""
        return [1 / (1 + math.exp(-self._stage.p_mean - away * self._stage.p_std)) for away in (-1, 0, 1)]

    def _held_out_loss(self, clips: Sequence[VideoBatch], level: float) -> float:
        """The mean at one noise level, over clips one by one; the words are never hidden."""
        found = []
        for k, clip in enumerate(clips):
            noise = torch.randn(clip.latents.shape, generator=torch.Generator().manual_seed(k))
            found.append(self._error(clip, torch.tensor([level]), noise).item())
        return sum(found) / len(found)

    def close(self) -> None:
        """Stop reading ahead."""
        self.clips.close()

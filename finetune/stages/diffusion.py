"""Training the video diffusion model: EDM's loss or that of distillation, one noise level per clip, on cached latents.

One stage for all sizes: a small model that is made anew, SVD and SV3D, whole or by a LoRA. What differs is in the
config: which networks are trained (`finetune.networks`), and when orbits are encoded (`finetune.clips`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from eval.metrics.lpips import load_lpips
from finetune.clips import ClipBatch, Clips
from finetune.config import RunConfig
from finetune.consistency import Distiller
from finetune.data import RunOrbits
from finetune.decoded_loss import DecodedLoss
from finetune.networks import make_trainee
from finetune.photographs import framed_photographs
from finetune.pictures import shrunk
from finetune.processes import WHOLE, MicroBatch, Processes
from finetune.validation import score_sampled
from mv3d.model.alpha import on_white
from mv3d.model.conditioning import Conditions, drop_conditions, embed_image
from mv3d.model.denoiser import Denoiser, sample_sigmas, weighted_error
from mv3d.model.weights import load_strict, load_weights
from mv3d.pack import Pack


class DiffusionTraining:
    """Whole orbits, each beginning at one of its views; what `TrainedNetworks` does not hold stays as it is."""

    divisible = True

    def __init__(self, config: RunConfig, pack: Pack | None = None, processes: Processes | None = None) -> None:
        """Make the networks, and encode orbits where that is done beforehand.

        Args:
            config: of the run.
            pack: of its orbits, for a new model.
            processes: that train together.
        """
        processes = processes or Processes()
        trainee = make_trainee(config, pack, processes.device)
        self._config, self._stage, self._device = config, config.diffusion, processes.device
        self.model = trainee.model
        self.networks = trainee.networks
        self.network: nn.Module = trainee.networks
        self._distiller = None
        if config.diffusion.distillation is not None:
            self._distiller = Distiller(trainee.model, trainee.base_facts, config)
        if pack is None:
            size_px = self.model.facts.resolution_px
            orbits = RunOrbits.of_folders(config, size_px)
        else:
            size_px = pack.frames.shape[2]
            orbits = RunOrbits.of_pack(pack, config.validation_objects)
        self._photographs = framed_photographs(config.pictures, size_px)
        self.clips = Clips(config, self.model, orbits, processes)
        self.images_per_sample = orbits.num_views
        # A base's own encoders have done their work; on a small card they would be in the way.
        self._put_encoders(torch.device("cpu"))
        decodes = bool(self._stage.lpips_weight or self._stage.pixel_weight)
        needed = decodes or self.clips.used.num_validation
        self._lpips = load_lpips("alex").to(self._device) if needed else None
        self._decoded_loss = None
        if decodes:
            assert self._lpips is not None
            self._decoded_loss = DecodedLoss(self._stage, self.model.vae, self._lpips, self.networks.discriminator)

    def start_from(self, model: Path) -> None:
        """Take the initial weights from a model folder; a decoder's are the autoencoder stage's."""
        for name, network in (("unet", self.networks.unet), ("image_encoder", self.networks.image_encoder)):
            if network is not None:
                load_strict(network, load_weights(model / name, torch.float32), str(model / name))

    def loss(self, step: int, generator: torch.Generator, part: MicroBatch = WHOLE) -> tuple[Tensor, dict[str, float]]:
        """The loss of a part of a batch of clips."""
        stage, size, device = self._stage, self._stage.loop.batch_size, self._device
        clips = self.clips.batch(step, generator, part)
        # Drawn for the whole batch, whichever part of it is wanted.
        dropout = stage.condition_dropout if self._distiller is None else 0.0
        dropped = torch.rand(size, generator=generator)[part.slice] < dropout
        if self._distiller is None:
            level = sample_sigmas(size, stage.p_mean, stage.p_std, generator)[part.slice].to(device)
        else:
            level = self._distiller.draw(size, generator)[part.slice].to(device)
        noise = torch.randn(size, *clips.latents.shape[1:], generator=generator)[part.slice].to(device)
        conditions = drop_conditions(self._conditions(clips), dropped)
        unet, scale = self.networks.unet, self.model.vae.config["scaling_factor"]
        latents = clips.latents.to(device) * scale
        if self._distiller is not None:
            return self._distiller.loss(unet, latents, noise, level, conditions).mean(), {}
        denoised = Denoiser(unet, scale)(latents + level.view(-1, 1, 1, 1, 1) * noise, level, conditions)
        loss = weighted_error(denoised, latents, level).mean()
        if self._decoded_loss is None:
            return loss, {}
        order = torch.rand(size, latents.shape[1], generator=generator)[part.slice].argsort(dim=1)
        decoded = self._decoded_loss(denoised / scale, clips, order[:, : stage.lpips_frames])
        metrics = {"edm": loss.item(), **{name: value.item() for name, value in decoded.metrics.items()}}
        return (loss if decoded.discriminator is None else loss + decoded.discriminator) + decoded.frames, metrics

    def _conditions(self, clips: ClipBatch) -> Conditions:
        """Those of the clips, with the picture's embedding by an encoder that is trained along."""
        encoder = self.networks.image_encoder
        if encoder is None:
            return clips.conditions
        assert clips.frames is not None
        pictures = shrunk(clips.frames[:, 0].to(self._device), self.model.facts.resolution_px)
        embedding = embed_image(encoder, on_white(pictures))
        return replace(clips.conditions.to(embedding.device, torch.float32), image_embedding=embedding)

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        return self.clips.object_ids(step)

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """Sample held-out orbits, and those of the config's pictures, with the averages, which ``network`` holds.

        Of held-out orbits: scores of samples, of all views but the input's, and what EDM's loss, or that of
        distillation, is on them at fixed noise levels, with fixed noise: ``loss_2`` at sigma 2, and the mean, ``loss``.
        """
        assert network is self.network
        orbits = self.clips.orbits
        has_truth = bool(self.clips.used.num_validation)
        if not (has_truth or self._photographs):
            return {}
        lora, device = self._stage.lora, self._device.type
        mixed = lora is not None and lora.base_storage != "float32"  # products and norms would not fit together else
        self._put_encoders(self._device)
        try:
            with torch.autocast(device, torch.bfloat16, enabled=mixed):
                pictures = self._photographs
                scores = score_sampled(self.model, orbits.held_out(), self._lpips, sheet, pictures, orbits.num_views)
            clips = self.clips.held_out() if has_truth else ()
        finally:
            self._put_encoders(torch.device("cpu"))
        if not has_truth:
            return {}
        with torch.autocast(device, torch.bfloat16, enabled=self._stage.loop.bfloat16):
            losses = {f"loss_{name}": self._held_out_loss(clips, at) for name, at in self._fixed_levels().items()}
        return scores | {"loss": sum(losses.values()) / len(losses)} | losses

    def _fixed_levels(self) -> dict[str, Tensor]:
        """Three of those that are drawn in training, by their sigma."""
        if self._distiller is not None:
            sigmas = self._distiller.sigmas
            at = [round(share * (len(sigmas) - 2)) for share in (0.0, 0.5, 1.0)]
            return {f"{sigmas[k].item():.2g}": torch.tensor([k]) for k in at}
        drawn = (math.exp(self._stage.p_mean + away * self._stage.p_std) for away in (-1, 0, 1))
        return {f"{sigma:.2g}": torch.tensor([sigma]) for sigma in drawn}

    def _held_out_loss(self, clips: Sequence[ClipBatch], level: Tensor) -> float:
        """The mean at one noise level, over clips one by one; the picture is never hidden."""
        unet, scale, found = self.networks.unet, self.model.vae.config["scaling_factor"], []
        level = level.to(self._device)
        for k, clip in enumerate(clips):
            latents = clip.latents.to(self._device) * scale
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(k)).to(self._device)
            conditions = self._conditions(clip)
            if self._distiller is not None:
                found.append(self._distiller.loss(unet, latents, noise, level, conditions).item())
            else:
                found.append(Denoiser(unet, scale).loss(latents, level, noise, conditions).item())
        return sum(found) / len(found)

    def _put_encoders(self, device: torch.device) -> None:
        """Have what only encodes and decodes, of a base, on a device."""
        if self._config.base is not None:
            for network in (self.model.vae, self.model.image_encoder, self.model.coarse):
                if network is not None:
                    nn.Module.to(network, device)

    def close(self) -> None:
        """Stop reading ahead."""
        self.clips.close()

"""Training the video diffusion model on cached latents: EDM's loss, one noise level per clip, SVD's conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from eval.metrics.lpips import load_lpips
from finetune.cache import DiskCache, weights_digest
from finetune.checkpoint import load_ema
from finetune.config import DiffusionStage, RunConfig
from finetune.critic import PatchCritic, balance
from finetune.data import draw, validation_orbits
from finetune.encode import OrbitFrames
from finetune.pictures import shrunk, to_tensor
from finetune.processes import WHOLE, Part
from finetune.stages.autoencoder import make_autoencoder
from finetune.validation import score_sampled
from mv3d.model.autoencoder import decode, encode_frames, sees_views, to_autoencoder
from mv3d.model.checkpoints import ModelFacts, OrbitModel
from mv3d.model.coarse_stage import make_coarse_orbit
from mv3d.model.conditioning import VIEW_CHANNELS, Conditions, drop_conditions, embed_image, poses_of
from mv3d.model.denoiser import Denoiser, sample_sigmas, weighted_error
from mv3d.model.unet import OrbitUNet
from mv3d.model.volume import CoarseVolume
from mv3d.model.weights import load_strict, load_weights
from mv3d.pack import Pack

_SCALING_FRAMES = 256


class DiffusionNetworks(nn.Module):
    """What this stage trains, together."""

    def __init__(
        self,
        unet: OrbitUNet,
        image_encoder: CLIPVisionModelWithProjection,
        decoder: nn.Module | None,
        critic: PatchCritic | None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.image_encoder = image_encoder
        self.decoder = decoder
        """The autoencoder's own, where it is trained along."""
        self.critic = critic
        """Of decoded frames, in training alone."""


@dataclass(frozen=True, eq=False)
class _Sample:
    """One clip of F frames, the picture first."""

    latents: Tensor
    """(F, C, h, w), unscaled."""
    conditions: Conditions
    frames: Tensor
    """(F, 4, S, S), straight."""
    views: Tensor
    """(F, 6, S, S), the coarse views, see `mv3d.model.drawing`; empty where the decoder sees none."""


class DiffusionTraining:
    """Whole orbits, each beginning at one of its views; autoencoder and coarse volume are the run's own, frozen."""

    divisible = True

    def __init__(self, run: RunConfig, pack: Pack, device: torch.device | str = "cpu") -> None:
        config = run.diffusion
        torch.manual_seed(run.seed)  # initial weights only
        self.vae = load_ema(run.run / "autoencoder", make_autoencoder(run.autoencoder))
        nn.Module.to(self.vae, device)  # the class annotates its own `to` wrongly
        self.volume = load_ema(run.run / "volume", CoarseVolume(run.volume.network)).to(device)
        decoder = self.vae.decoder.requires_grad_(True) if config.train_decoder else None
        unet, image_encoder = make_unet(run), make_image_encoder(config, run.resolution_px)
        critic = PatchCritic() if config.critic_weight else None
        self._networks = DiffusionNetworks(unet, image_encoder, decoder, critic).to(device)
        self.network: nn.Module = self._networks
        self._run = run
        self._config = config
        self._device = device
        self._pack = pack
        self.images_per_sample = pack.frames.shape[1]
        self._orbits = pack.indices("train")
        self._validation = validation_orbits(pack, run.validation_objects)
        self._lpips = load_lpips("alex").to(device)
        latents = (
            pack.frames.shape[1],
            run.autoencoder.latent_channels,
            run.resolution_px // 8,
            run.resolution_px // 8,
        )
        orbits = [f"{entry.orbit} {entry.fingerprint}" for entry in pack.entries]
        inputs = [
            f"{made_of} from {self._start(orbit, which)}"
            for orbit, made_of in enumerate(orbits)
            for which in range(config.inputs_per_orbit)
        ]
        encoder = [part for part in (self.vae.encoder, self.vae.quant_conv) if part is not None]
        digest = weights_digest(*encoder)
        self._latents = DiskCache(run.run / f"latents-{digest}", orbits, latents)
        digest = weights_digest(*encoder, self.volume)
        self._coarse = DiskCache(run.run / f"coarse-{digest}", inputs, latents)
        folder = run.run / f"views-{weights_digest(self.volume)}"
        shape = (pack.frames.shape[1], VIEW_CHANNELS, *pack.frames.shape[2:4])
        self._views = DiskCache(folder, inputs, shape) if sees_views(self.vae) else None
        self.vae.register_to_config(scaling_factor=self._measure_scaling())

    def start_from(self, model: Path) -> None:
        """Take the initial weights from a model folder; a decoder's are the autoencoder stage's."""
        for name, network in (("unet", self._networks.unet), ("image_encoder", self._networks.image_encoder)):
            load_strict(network, load_weights(model / name, torch.float32), str(model / name))

    def loss(self, step: int, generator: torch.Generator, part: Part = WHOLE) -> tuple[Tensor, dict[str, float]]:
        """EDM's weighted loss of a batch of orbits."""
        config = self._config
        inputs = config.inputs_per_orbit
        chosen = draw(config.loop.batch_size, len(self._orbits) * inputs, self._run.seed, step)
        samples = [self._sample(self._orbits[k // inputs], k % inputs) for k in chosen[part.slice]]
        latents = torch.stack([sample.latents for sample in samples]).to(self._device)
        joined = samples[0].conditions
        for other in samples[1:]:
            joined = joined.joined(other.conditions)
        pictures = torch.stack([sample.frames[0] for sample in samples]).to(self._device)
        pictures = shrunk(pictures, self._run.resolution_px)
        embedding = embed_image(self._networks.image_encoder, to_autoencoder(pictures, 3) / 2 + 0.5)
        # Drawn for the whole batch, whichever part of it is wanted.
        dropped = torch.rand(len(chosen), generator=generator)[part.slice] < config.condition_dropout
        joined = joined.to(embedding.device, torch.float32)
        joined = drop_conditions(replace(joined, image_embedding=embedding), dropped)
        sigma = sample_sigmas(len(chosen), config.p_mean, config.p_std, generator)[part.slice].to(self._device)
        noise = torch.randn(len(chosen), *latents.shape[1:], generator=generator)[part.slice].to(self._device)
        scaled = latents * self.vae.config["scaling_factor"]
        denoiser = Denoiser(self._networks.unet, self.vae.config["scaling_factor"])
        denoised = denoiser(scaled + sigma.view(-1, 1, 1, 1, 1) * noise, sigma, joined)
        loss = weighted_error(denoised, scaled, sigma).mean()
        if not (config.lpips_weight or config.pixel_weight):
            return loss, {}
        order = torch.rand(len(chosen), latents.shape[1], generator=generator)[part.slice].argsort(dim=1)
        estimate = denoised / self.vae.config["scaling_factor"]
        output, truth = self._decoded(estimate, samples, order[:, : config.lpips_frames])
        figures = {"edm": loss.item()}
        seen = output.new_zeros(())
        if config.lpips_weight:
            lpips = self._lpips(output[:, :3], truth[:, :3]).mean()
            seen = seen + config.lpips_weight * lpips
            figures["lpips"] = lpips.item()
        if config.pixel_weight:
            squared = F.mse_loss(output, truth)
            seen = seen + config.pixel_weight * squared
            figures["psnr_rgba"] = -10 * squared.log10().item()
        critic = self._networks.critic
        if critic is not None:
            lesson, doubt = critic.lesson(output, truth), critic.doubt(output)
            weight = config.critic_weight * balance(seen, doubt, output)
            loss, seen = loss + lesson, seen + weight * doubt
            figures |= {"lesson": lesson.item(), "doubt": doubt.item(), "balance": weight.item()}
        loss = loss + seen
        return loss, figures

    def _decoded(self, latents: Tensor, samples: Sequence[_Sample], which: Tensor) -> tuple[Tensor, Tensor]:
        """A few frames, ``which`` (B, n) of each clip, decoded and as they are.

        Both are (B n, 4, S, S): RGB on white and alpha, in [0, 1].
        """
        device = self._device  # latents are there; of what is on the CPU, only what is compared goes there
        chosen = torch.cat([clip[w.to(device)] for clip, w in zip(latents, which, strict=True)])
        truth = torch.cat([sample.frames[w] for sample, w in zip(samples, which, strict=True)]).to(device)
        views = None
        if self._views is not None:
            views = torch.cat([sample.views[w] for sample, w in zip(samples, which, strict=True)]).to(device)
        output = decode(self.vae, chosen, views)
        return output.float() / 2 + 0.5, to_autoencoder(truth, 4) / 2 + 0.5

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        inputs = self._config.inputs_per_orbit
        chosen = draw(self._config.loop.batch_size, len(self._orbits) * inputs, self._run.seed, step)
        return [self._pack.entries[self._orbits[k // inputs]].object_id for k in chosen]

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """Scores of sampled validation orbits, input view excluded."""
        pack = self._pack
        orbits = (OrbitFrames(to_tensor(pack.frames[k]), pack.cameras_from(k, 0)) for k in self._validation)
        return score_sampled(self.model(network), orbits, self._lpips, sheet)

    def model(self, network: nn.Module) -> OrbitModel:
        """The whole model around trained (or averaged) networks of this stage."""
        assert isinstance(network, DiffusionNetworks)
        run = self._run
        facts = ModelFacts(
            name=run.model_name,
            licence=run.licence,
            resolution_px=run.resolution_px,
            num_views=self._pack.frames.shape[1],
            added_time_ids=(self._config.cond_aug,),
            sigma_min=self._config.sigma_min,
            sigma_max=self._config.sigma_max,
            num_steps=self._config.sampling_steps,
            guidance="triangle",
            guidance_low=1.0,
            guidance_high=self._config.guidance_high,
        )
        return OrbitModel(network.unet, self.vae, network.image_encoder, self.volume, facts)

    @torch.no_grad()
    def _sample(self, orbit: int, which: int) -> _Sample:
        start = self._start(orbit, which)
        frames = to_tensor(self._pack.frames_from(orbit, start))
        cameras = self._pack.cameras_from(orbit, start)
        latents = self._latents.get(orbit, lambda: self._encode(orbit)).roll(-start, dims=0)
        size_px, picture = frames.shape[-1], frames[0].to(self._device)
        made = cache(lambda: make_coarse_orbit(self.volume, picture, cameras, size_px))  # of what is not on disk
        row = orbit * self._config.inputs_per_orbit + which
        views = latents.new_empty(0) if self._views is None else self._views.get(row, lambda: made().views)
        coarse = self._coarse.get(row, lambda: made().latents(self.vae, self._run.resolution_px))
        conditions = Conditions(
            image_latents=latents[:1],
            image_embedding=torch.zeros(1, 1, self._config.cross_attention_dim),
            added_time_ids=torch.tensor([[self._config.cond_aug]]),
            poses=poses_of(cameras)[None],
            coarse_latents=coarse[None],
        )
        return _Sample(latents, conditions, frames, views)

    def _start(self, orbit: int, which: int) -> int:
        """Which view is an orbit's input picture number ``which``."""
        return int(np.random.default_rng([self._run.seed, orbit, which]).integers(self._pack.frames.shape[1]))

    @torch.no_grad()
    def _encode(self, orbit: int) -> Tensor:
        frames = shrunk(to_tensor(self._pack.frames[orbit]), self._run.resolution_px)
        return encode_frames(self.vae, frames.to(self._device))

    @torch.no_grad()
    def _measure_scaling(self) -> float:
        """What brings latents to unit variance, over a fixed choice of frames (Rombach et al. 2022, appendix G)."""
        views = self._pack.frames.shape[1]
        chosen = draw(_SCALING_FRAMES, len(self._orbits) * views, self._run.seed, 0)
        frames = to_tensor(np.stack([self._pack.frames[self._orbits[k // views], k % views] for k in chosen]))
        frames = shrunk(frames, self._run.resolution_px)
        latents = torch.cat([encode_frames(self.vae, chunk.to(self._device)) for chunk in frames.split(32)])
        return round(1 / latents.std().item(), 5)


def make_unet(run: RunConfig) -> OrbitUNet:
    """Make the untrained video UNet at the config's widths."""
    config, latent = run.diffusion, run.autoencoder.latent_channels
    levels = len(config.channels)
    return OrbitUNet(
        sample_size=run.resolution_px // 8,
        in_channels=2 * latent,
        out_channels=latent,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * (levels - 1) + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
        block_out_channels=config.channels,
        addition_time_embed_dim=config.id_embed_dim,
        projection_class_embeddings_input_dim=config.id_embed_dim,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.cross_attention_dim,
        num_attention_heads=config.heads,
        num_frames=21,
        pose_embed_dim=config.pose_embed_dim,
        coarse_channels=latent,
        coarse_mean=True,
    )


def make_image_encoder(config: DiffusionStage, picture_px: int) -> CLIPVisionModelWithProjection:
    """Make a vision transformer of CLIP's architecture small enough to learn beside the UNet."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        projection_dim=config.cross_attention_dim,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=picture_px,
        patch_size=16,
    )
    return CLIPVisionModelWithProjection(vision)

"""Adapting a model that there is, its weights or a LoRA's, on cached latents: EDM's loss, or that of distillation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from eval.metrics.lpips import load_lpips
from finetune.base import adapted_model, load_base
from finetune.consistency import Distiller, sampling_facts
from finetune.encode import begun_at, encode_orbits, load_frames
from finetune.processes import WHOLE, Part, Processes
from finetune.recipe import Recipe
from finetune.shards import Sample, ShardStream, decoded, list_shards
from finetune.validation import score_sampled
from mv3d.conventions import from_nerfstudio
from mv3d.dataset import ListedOrbit, list_orbits
from mv3d.errors import Mv3dError
from mv3d.model.conditioning import Conditions, drop_conditions, poses_of
from mv3d.model.denoiser import Denoiser, sample_sigmas
from mv3d.model.lora import add_lora, train_pose_columns


class AdaptTraining:
    """Whole orbits, each beginning at any of its views; everything but the UNet stays the base's."""

    divisible = True

    def __init__(self, recipe: Recipe, processes: Processes | None = None) -> None:
        processes = processes or Processes()
        self._recipe = recipe
        self.images_per_sample = recipe.num_views
        base = load_base(recipe, processes.device)
        self.sampling = sampling_facts(base.facts, recipe)
        """How the result is sampled, where that is not as its base."""
        self._distiller = Distiller(base, recipe) if recipe.distillation is not None else None
        self.model = adapted_model(base, recipe)
        listing = list_orbits(recipe.data, recipe.category)
        self.entries = listing.orbits
        self._validation, left_out = choose_validation(self.entries, recipe, self.model.facts.resolution_px)
        training = [entry for entry in self.entries if entry.split == "train"]
        if not training:
            raise Mv3dError(f"no orbit of {', '.join(map(str, recipe.data))} is in the split train")
        folder = encode_orbits(self.model, recipe, training, recipe.run, processes)
        processes.wait()
        shards = list_shards(folder)
        self._stream = ShardStream(shards, recipe.seed, recipe.loop.batch_size, recipe.cache.buffer_shards)
        self.left_out = listing.left_out | left_out | {o: why for shard in shards for o, why in shard.left_out.items()}
        """Why orbits, by their folder, are not used."""
        self.training = [entry for entry in training if entry.orbit not in self.left_out]
        self.num_validation = len(self._validation)
        self.trained_on = {name for shard in shards for name in shard.object_ids}
        unet = self.model.unet
        self.network: nn.Module = unet
        self.pose_base: Tensor | None = None
        """The pose columns before training, where a LoRA has to bring its own."""
        unet.requires_grad_(recipe.lora is None)
        if recipe.lora is not None:
            first = unet.config["projection_class_embeddings_input_dim"]
            columns = unet.add_embedding.linear_1.weight[:, first:]
            lacking = recipe.distillation is None and columns.shape[1] > 0 and not bool(columns.any())
            self.pose_base = columns.detach().clone() if lacking else None
            add_lora(unet, recipe.lora.rank, recipe.lora.alpha, recipe.lora.targets, recipe.seed)
            if lacking:
                train_pose_columns(unet)
        self._lpips = load_lpips("alex").to(processes.device) if self._validation else None

    def loss(self, step: int, generator: torch.Generator, part: Part = WHOLE) -> tuple[Tensor, dict[str, float]]:
        """The loss of a part of a batch of orbits, one noise level per clip."""
        recipe, size = self._recipe, self._recipe.loop.batch_size
        # Drawn for the whole batch, whichever part of it is wanted.
        starts = torch.randint(2**31, (size,), generator=generator)[part.slice]
        hidden = recipe.noise.condition_dropout if self._distiller is None else 0.0
        dropped = torch.rand(size, generator=generator)[part.slice] < hidden
        if self._distiller is None:
            level = sample_sigmas(size, recipe.noise.p_mean, recipe.noise.p_std, generator)[part.slice]
        else:
            level = torch.randint(len(self._distiller.sigmas) - 1, (size,), generator=generator)[part.slice]
        samples = [decoded(raw) for raw in self._stream.batch(step)[part.slice]]
        clips = [self._clip(sample, int(start)) for sample, start in zip(samples, starts, strict=True)]
        latents = torch.stack([clip for clip, _ in clips])
        noise = torch.randn(size, *latents.shape[1:], generator=generator)[part.slice]
        conditions = clips[0][1]
        for _, other in clips[1:]:
            conditions = conditions.joined(other)
        conditions = drop_conditions(conditions, dropped)
        unet, scale = self.model.unet, self.model.vae.config["scaling_factor"]
        device = unet.device
        latents, level, noise = (x.to(device) for x in (latents * scale, level, noise))
        if self._distiller is not None:
            return self._distiller.loss(unet, latents, noise, level, conditions).mean(), {}
        return Denoiser(unet, scale).loss(latents, level, noise, conditions).mean(), {}

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        return self._stream.object_ids(step)

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """Sample held-out orbits with the averages, which ``network`` holds; the input view is not scored."""
        assert network is self.network
        if self._lpips is None:
            return {}
        size_px, count = self.model.facts.resolution_px, self._recipe.num_views
        orbits = (begun_at(load_frames(entry, size_px), 0, count) for entry in self._validation)
        return score_sampled(self.model, orbits, self._lpips, sheet)

    def close(self) -> None:
        """Stop reading ahead."""
        self._stream.close()

    def _clip(self, sample: Sample, start: int) -> tuple[Tensor, Conditions]:
        """Unscaled latents (F, C, h, w) and conditions of one clip, beginning at its input view."""
        arrays, facts = sample.arrays, self.model.facts
        total, count = len(arrays["latents"]), self._recipe.num_views
        if total % count:
            raise Mv3dError(f"an orbit of {total} views cannot be thinned to {count}; see num_views")
        stride = total // count
        possible = total if self._recipe.turns else total - (count - 1) * stride
        first = 0 if "coarse" in arrays else start % possible
        order = (first + np.arange(count) * stride) % total
        cameras = [from_nerfstudio(sample.facts["cameras"][k]) for k in order]
        latents = torch.from_numpy(arrays["latents"][order]).float()
        cond_aug = sample.facts["cond_aug"][first] if "cond_aug" in sample.facts else facts.added_time_ids[-1]
        picture = torch.from_numpy(arrays["noisy"][first]).float() if "noisy" in arrays else latents[0]
        conditions = Conditions(
            image_latents=picture[None],
            image_embedding=torch.from_numpy(arrays["embedding"][first]).float()[None, None],
            added_time_ids=torch.tensor([[*facts.added_time_ids[:-1], cond_aug]]),
            poses=poses_of(cameras)[None] if self.model.unet.config["pose_embed_dim"] else None,
            coarse_latents=torch.from_numpy(arrays["coarse"]).float()[None] if "coarse" in arrays else None,
        )
        return latents, conditions


def choose_validation(
    entries: Sequence[ListedOrbit], recipe: Recipe, size_px: int
) -> tuple[list[ListedOrbit], dict[str, str]]:
    """One orbit of each of the first held-out objects, and why those before it, by their folder, cannot be used."""
    chosen: dict[str, ListedOrbit] = {}
    left_out = {}
    for entry in sorted(entries, key=lambda entry: entry.object_id):
        if entry.split != recipe.validation_split or entry.object_id in chosen:
            continue
        if len(chosen) == recipe.validation_objects:
            break
        try:
            begun_at(load_frames(entry, size_px), 0, recipe.num_views)
            chosen[entry.object_id] = entry
        except Mv3dError as error:
            left_out[entry.orbit] = str(error)
    return list(chosen.values()), left_out

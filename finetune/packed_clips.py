"""Clips of a new model: whole packed orbits, whose latents and coarse views are made at their first use and kept."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor

from finetune.cache import DiskCache, weights_digest
from finetune.clips import ClipBatch, OrbitFrames, batch_of
from finetune.config import RunConfig
from finetune.data import draw, used_orbits, validation_orbits
from finetune.pictures import shrunk, to_tensor
from finetune.processes import WHOLE, MicroBatch
from mv3d.model.autoencoder import encode_frames, sees_views
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.coarse_stage import make_coarse_orbit
from mv3d.model.conditioning import VIEW_CHANNELS
from mv3d.model.pipeline import assemble_conditions
from mv3d.pack import Pack


class PackedClips:
    """Whole orbits, each beginning at one of the views that serve as its input picture."""

    def __init__(self, config: RunConfig, model: OrbitModel, pack: Pack) -> None:
        assert model.volume is not None
        self._config, self._model, self._pack = config, model, pack
        self._orbits = pack.indices("train")
        self._validation = validation_orbits(pack, config.validation_objects)
        self.used = used_orbits(pack, config.validation_objects)
        self.num_views = pack.frames.shape[1]
        size = model.facts.resolution_px // 8
        latents = (self.num_views, model.vae.config["latent_channels"], size, size)
        orbits = [f"{entry.orbit} {entry.fingerprint}" for entry in pack.entries]
        inputs = [
            f"{made_of} from {self._start(orbit, which)}"
            for orbit, made_of in enumerate(orbits)
            for which in range(config.diffusion.inputs_per_orbit)
        ]
        encoder = [part for part in (model.vae.encoder, model.vae.quant_conv) if part is not None]
        self._latents = DiskCache(config.run / f"latents-{weights_digest(*encoder)}", orbits, latents)
        self._coarse = DiskCache(config.run / f"coarse-{weights_digest(*encoder, model.volume)}", inputs, latents)
        folder = config.run / f"views-{weights_digest(model.volume)}"
        shape = (self.num_views, VIEW_CHANNELS, *pack.frames.shape[2:4])
        self._views = DiskCache(folder, inputs, shape) if sees_views(model.vae) else None

    def batch(self, step: int, generator: torch.Generator, part: MicroBatch = WHOLE) -> ClipBatch:  # noqa: ARG002
        """A part of a step's clips; nothing is drawn from ``generator``."""
        inputs = self._config.diffusion.inputs_per_orbit
        chosen = self._chosen(step)[part.slice]
        return batch_of([self._clip(self._orbits[k // inputs], k % inputs) for k in chosen])

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        inputs = self._config.diffusion.inputs_per_orbit
        return [self._pack.entries[self._orbits[k // inputs]].object_id for k in self._chosen(step)]

    def validation(self) -> Iterator[OrbitFrames]:
        """Held-out orbits, from their first view."""
        for k in self._validation:
            yield OrbitFrames(to_tensor(self._pack.frames[k]), self._pack.cameras_from(k, 0))

    def close(self) -> None:
        """Nothing is read ahead."""

    def _chosen(self, step: int) -> np.ndarray:
        config = self._config.diffusion
        return draw(config.loop.batch_size, len(self._orbits) * config.inputs_per_orbit, self._config.seed, step)

    def _start(self, orbit: int, which: int) -> int:
        """Which view is an orbit's input picture number ``which``."""
        return int(np.random.default_rng([self._config.seed, orbit, which]).integers(self._pack.frames.shape[1]))

    @torch.no_grad()
    def _clip(self, orbit: int, which: int) -> ClipBatch:
        model, start = self._model, self._start(orbit, which)
        frames = to_tensor(self._pack.frames_from(orbit, start))
        cameras = self._pack.cameras_from(orbit, start)
        latents = self._latents.get(orbit, lambda: self._encode(orbit)).roll(-start, dims=0)
        volume, size_px, picture = model.volume, frames.shape[-1], frames[0].to(model.vae.device)
        assert volume is not None
        made = cache(lambda: make_coarse_orbit(volume, picture, cameras, size_px))  # of what is not on disk
        row = orbit * self._config.diffusion.inputs_per_orbit + which
        views = None if self._views is None else self._views.get(row, lambda: made().views)
        coarse = self._coarse.get(row, lambda: made().latents(model.vae, model.facts.resolution_px))
        conditions = assemble_conditions(
            model,
            cameras,
            picture_latents=latents[0],
            embedding=torch.zeros(self._config.diffusion.cross_attention_dim),  # its encoder is trained along
            coarse_latents=coarse,
        )
        return ClipBatch(latents[None], conditions, frames[None], None if views is None else views[None])

    @torch.no_grad()
    def _encode(self, orbit: int) -> Tensor:
        frames = shrunk(to_tensor(self._pack.frames[orbit]), self._model.facts.resolution_px)
        return encode_frames(self._model.vae, frames.to(self._model.vae.device))

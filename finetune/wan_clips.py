"""Orbits as videos for Wan: encoded once, beforehand, and given to a training step as clips.

Per sample: ``latents`` (C, L, h, w), as they are diffused. What lies in a latent depends on where the video begins, so
an orbit's samples begin at a view that is drawn once for each of its variants, where SVD's begin anew at every use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.clips import encoded_beforehand
from finetune.config import RunConfig
from finetune.data import RunOrbits, begun_at
from finetune.encode import SampleEncoder, half
from finetune.pictures import shrunk
from finetune.processes import WHOLE, MicroBatch, Processes
from finetune.shards import Sample
from mv3d.conventions import from_nerfstudio, to_nerfstudio
from mv3d.model.alpha import on_white
from mv3d.model.flow import FlowConditions
from mv3d.model.wan_checkpoints import WanModel
from mv3d.model.wan_video import encode_video, rays_of


@dataclass(frozen=True, eq=False)
class WanEncoder(SampleEncoder):
    """Orbit by orbit."""

    model: WanModel

    @property
    def kind(self) -> str:
        """Of whole videos."""
        return "video"

    @property
    def encoders(self) -> Sequence[nn.Module]:
        """The autoencoder's first half."""
        return self.model.vae.encoder, self.model.vae.quant_conv

    def _sample(self, k: int, variant: int) -> Sample:
        config, entry, count = self.config, self.orbits.entries[k], self.orbits.num_views
        rng = np.random.default_rng([config.seed, k, variant])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        whole = self.orbits.load(k)
        total = len(whole.cameras)
        possible = total if config.turns else total - (count - 1) * (total // count)
        start = int(rng.integers(max(possible, 1)))
        frames = self._changed(begun_at(whole, start, count), variant, generator)
        video = on_white(shrunk(frames.rgba, self.model.facts.resolution_px)).transpose(0, 1)[None]
        facts: dict[str, Any] = {"object_id": entry.object_id, "orbit": entry.orbit, "variant": variant, "start": start}
        facts["cameras"] = [to_nerfstudio(camera) for camera in frames.cameras]
        return Sample(facts, {"latents": half(encode_video(self.model.vae, video)[0])})


@dataclass(frozen=True, eq=False)
class VideoBatch:
    """B clips, each beginning at its input picture's view."""

    latents: Tensor
    """(B, C, L, h, w), as they are diffused."""
    conditions: FlowConditions

    @classmethod
    def of(cls, samples: Sequence[Sample], model: WanModel, device: torch.device) -> VideoBatch:
        """The clips of samples, on a device."""
        latents = torch.stack([torch.from_numpy(sample.arrays["latents"]).float() for sample in samples]).to(device)
        rays = None
        if model.is_camera_conditioned:
            cameras = [[from_nerfstudio(frame) for frame in sample.facts["cameras"]] for sample in samples]
            rays = torch.stack([rays_of(some, latents.shape[-1]) for some in cameras]).to(device)
        prompt = model.prompt.padded().to(device).expand(len(samples), -1, -1)
        return cls(latents, FlowConditions(latents[:, :, :1], prompt, rays))


class WanClips:
    """The batches of a run; what a step is given depends on seed and step alone, wherever the run was stopped."""

    def __init__(self, config: RunConfig, model: WanModel, orbits: RunOrbits, processes: Processes) -> None:
        """Encode all orbits; several processes share the work."""
        self._model, self._device, self.orbits = model, processes.device, orbits
        self._encoder = WanEncoder(model, config, orbits)
        self._samples, self.used = encoded_beforehand(self._encoder, processes)
        self._held_out: list[VideoBatch] | None = None

    def batch(self, step: int, part: MicroBatch = WHOLE) -> VideoBatch:
        """A part of a step's clips."""
        return VideoBatch.of(self._samples.samples(step, part), self._model, self._device)

    def held_out(self) -> Sequence[VideoBatch]:
        """The clips of the orbits that validate, encoded when they are first asked for."""
        if self._held_out is None:
            samples = (self._encoder.sample(k, 0) for k in self.orbits.validation)
            self._held_out = [VideoBatch.of([sample], self._model, self._device) for sample in samples]
        return self._held_out

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        return self._samples.object_ids(step)

    def close(self) -> None:
        """Stop reading ahead."""
        self._samples.close()

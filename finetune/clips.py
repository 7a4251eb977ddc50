"""Clips of encoded orbits: what a training step of the diffusion stage is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from finetune.config import RunConfig
from finetune.data import RunOrbits, UsedOrbits, begun_at
from finetune.encode import OnDemand, OrbitEncoder, SampleEncoder, encode_orbits
from finetune.processes import WHOLE, MicroBatch, Processes
from finetune.shards import Sample, ShardStream, list_shards
from mv3d.conventions import from_nerfstudio
from mv3d.errors import Mv3dError
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.conditioning import Conditions
from mv3d.model.pipeline import assemble_conditions


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """B clips of F frames, each beginning at its input picture's view."""

    latents: Tensor
    """(B, F, C, h, w), unscaled."""
    conditions: Conditions
    frames: Tensor | None = None
    """(B, F, 4, S, S), straight, of the size that the model gives; where something is trained that sees frames."""
    views: Tensor | None = None
    """(B, F, 6, S, S), the coarse views, see `mv3d.model.drawing`; for a decoder that sees them."""


class _Samples(Protocol):
    def samples(self, step: int, part: MicroBatch) -> list[Sample]: ...
    def object_ids(self, step: int) -> list[str]: ...
    def close(self) -> None: ...


def encoded_beforehand(encoder: SampleEncoder, processes: Processes) -> tuple[ShardStream, UsedOrbits]:
    """Encode all orbits of a run, those that are not yet, and read their samples; and which orbits those are of."""
    shards, config = list_shards(encode_orbits(encoder, processes)), encoder.config
    stream = ShardStream(shards, config.seed, config.diffusion.loop.batch_size, config.diffusion.cache.buffer_shards)
    return stream, encoder.orbits.used({orbit: why for shard in shards for orbit, why in shard.left_out.items()})


class Clips:
    """The batches of a run; what a step is given depends on seed and step alone, wherever the run was stopped."""

    def __init__(self, config: RunConfig, model: OrbitModel, orbits: RunOrbits, processes: Processes) -> None:
        """Encode a base's orbits, all of them beforehand, or get ready to encode a new model's at their first use.

        A base's networks take long for an orbit, and several processes share the work; a new model is small, and may
        be trained for less than an epoch.
        """
        self._config, self._model, self.orbits = config, model, orbits
        self._held_out: list[ClipBatch] | None = None
        self._places = {entry.orbit: k for k, entry in enumerate(orbits.entries)}
        self._encoder = OrbitEncoder(model, config, orbits)
        if config.base is None:
            self._samples: _Samples = OnDemand(self._encoder, processes)
            self.used = orbits.used()
            return
        self._samples, self.used = encoded_beforehand(self._encoder, processes)

    def batch(self, step: int, generator: torch.Generator, part: MicroBatch = WHOLE) -> ClipBatch:
        """A part of a step's clips; of ``generator`` come the views that a base's begin at."""
        size = self._config.diffusion.loop.batch_size
        starts = [0] * size
        if self._config.base is not None:
            starts = torch.randint(2**31, (size,), generator=generator).tolist()
        pairs = zip(self.samples(step, part), starts[part.slice], strict=True)
        return _joined([self.clip(sample, start) for sample, start in pairs])

    def held_out(self) -> Sequence[ClipBatch]:
        """The clips of the orbits that validate, encoded when they are first asked for; of frames only the pictures."""
        if self._held_out is None:
            samples = (self._encoder.sample(k, 0) for k in self.orbits.validation)
            clips = (self.clip(sample, 0) for sample in samples)
            self._held_out = [
                replace(clip, frames=None if clip.frames is None else clip.frames[:, :1], views=None) for clip in clips
            ]
        return self._held_out

    def samples(self, step: int, part: MicroBatch = WHOLE) -> list[Sample]:
        """The encoded orbits that a part of a step's clips are of."""
        return self._samples.samples(step, part)

    def clip(self, sample: Sample, start: int) -> ClipBatch:
        """One clip of a sample, which begins at its view ``start``, or where its coarse views do.

        Raises:
            Mv3dError: if the orbit cannot be thinned to a clip.
        """
        arrays, count = {name: torch.from_numpy(array) for name, array in sample.arrays.items()}, self.orbits.num_views
        total = len(arrays["latents"])
        if total % count:
            raise Mv3dError(f"an orbit of {total} views cannot be thinned to {count}; see num_views")
        stride = total // count
        possible = total if self._config.turns else total - (count - 1) * stride
        first = 0 if "coarse" in arrays else start % possible
        order = (first + np.arange(count) * stride) % total
        latents = arrays["latents"][order].float()
        new = self._config.base is None
        if new:
            embedding = torch.zeros(self._config.diffusion.cross_attention_dim)  # its encoder is trained along
        else:
            embedding = arrays["embedding"][first].float()
        conditions = assemble_conditions(
            self._model,
            [from_nerfstudio(sample.facts["cameras"][k]) for k in order],
            picture_latents=arrays["noisy"][first].float() if "noisy" in arrays else latents[0],
            embedding=embedding,
            coarse_latents=arrays["coarse"].float() if "coarse" in arrays else None,
            cond_aug=sample.facts["cond_aug"][first] if "cond_aug" in sample.facts else None,
        )
        frames = self._frames(sample)[None] if new else None
        views = arrays["views"].float()[None] if "views" in arrays else None
        return ClipBatch(latents[None], conditions, frames, views)

    def _frames(self, sample: Sample) -> Tensor:
        orbit = self.orbits.load(self._places[sample.facts["orbit"]])
        return begun_at(orbit, sample.facts["start"], self.orbits.num_views).rgba

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        return self._samples.object_ids(step)

    def close(self) -> None:
        """Stop reading ahead."""
        self._samples.close()


def _joined(clips: Sequence[ClipBatch]) -> ClipBatch:
    conditions = clips[0].conditions
    for other in clips[1:]:
        conditions = conditions.joined(other.conditions)
    return ClipBatch(
        torch.cat([clip.latents for clip in clips]),
        conditions,
        None if clips[0].frames is None else torch.cat([clip.frames for clip in clips if clip.frames is not None]),
        None if clips[0].views is None else torch.cat([clip.views for clip in clips if clip.views is not None]),
    )

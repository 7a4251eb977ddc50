"""Clips of a base's orbits, encoded into shards beforehand and streamed from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from finetune.clips import ClipBatch, OrbitFrames, batch_of, begun_at, load_frames
from finetune.config import RunConfig
from finetune.data import UsedOrbits
from finetune.encode import encode_orbits
from finetune.processes import WHOLE, MicroBatch, Processes
from finetune.shards import Sample, ShardStream, decoded, list_shards
from mv3d.conventions import from_nerfstudio
from mv3d.dataset import ListedOrbit, list_orbits
from mv3d.errors import Mv3dError
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.pipeline import assemble_conditions


class ShardedClips:
    """Orbits thinned to clips, each beginning at any of its views."""

    def __init__(self, config: RunConfig, model: OrbitModel, processes: Processes) -> None:
        assert config.num_views is not None
        self._config, self._model = config, model
        self.num_views = config.num_views
        listing = list_orbits(config.data, config.category)
        self._validation, unusable = choose_validation(listing.orbits, config, model.facts.resolution_px)
        training = [entry for entry in listing.orbits if entry.split == "train"]
        if not training:
            raise Mv3dError(f"no orbit of {', '.join(map(str, config.data))} is in the split train")
        folder = encode_orbits(model, config, training, config.run, processes)
        processes.wait()
        shards = list_shards(folder)
        stage = config.diffusion
        self._stream = ShardStream(shards, config.seed, stage.loop.batch_size, stage.cache.buffer_shards)
        left_out = listing.left_out | unusable | {o: why for shard in shards for o, why in shard.left_out.items()}
        self.used = UsedOrbits(
            [entry for entry in training if entry.orbit not in left_out], len(self._validation), left_out
        )

    def batch(self, step: int, generator: torch.Generator, part: MicroBatch = WHOLE) -> ClipBatch:
        """A part of a step's clips; of ``generator`` come the views that they begin at."""
        size = self._config.diffusion.loop.batch_size
        starts = torch.randint(2**31, (size,), generator=generator)[part.slice].tolist()
        samples = [decoded(raw) for raw in self._stream.batch(step)[part.slice]]
        return batch_of([self._clip(sample, start) for sample, start in zip(samples, starts, strict=True)])

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        return self._stream.object_ids(step)

    def validation(self) -> Iterator[OrbitFrames]:
        """Held-out orbits, from their first view."""
        for entry in self._validation:
            yield begun_at(load_frames(entry, self._model.facts.resolution_px), 0, self.num_views)

    def close(self) -> None:
        """Stop reading ahead."""
        self._stream.close()

    def _clip(self, sample: Sample, start: int) -> ClipBatch:
        arrays = sample.arrays
        total, count = len(arrays["latents"]), self.num_views
        if total % count:
            raise Mv3dError(f"an orbit of {total} views cannot be thinned to {count}; see num_views")
        stride = total // count
        possible = total if self._config.turns else total - (count - 1) * stride
        first = 0 if "coarse" in arrays else start % possible
        order = (first + np.arange(count) * stride) % total
        latents = torch.from_numpy(arrays["latents"][order]).float()
        conditions = assemble_conditions(
            self._model,
            [from_nerfstudio(sample.facts["cameras"][k]) for k in order],
            picture_latents=torch.from_numpy(arrays["noisy"][first]).float() if "noisy" in arrays else latents[0],
            embedding=torch.from_numpy(arrays["embedding"][first]).float(),
            coarse_latents=torch.from_numpy(arrays["coarse"]).float() if "coarse" in arrays else None,
            cond_aug=sample.facts["cond_aug"][first] if "cond_aug" in sample.facts else None,
        )
        return ClipBatch(latents[None], conditions)


def choose_validation(
    entries: Sequence[ListedOrbit], config: RunConfig, size_px: int
) -> tuple[list[ListedOrbit], dict[str, str]]:
    """One orbit of each of the first held-out objects, and why those before it, by their folder, cannot be used."""
    assert config.num_views is not None
    chosen: dict[str, ListedOrbit] = {}
    left_out = {}
    for entry in sorted(entries, key=lambda entry: entry.object_id):
        if entry.split != config.validation_split or entry.object_id in chosen:
            continue
        if len(chosen) == config.validation_objects:
            break
        try:
            begun_at(load_frames(entry, size_px), 0, config.num_views)
            chosen[entry.object_id] = entry
        except Mv3dError as error:
            left_out[entry.orbit] = str(error)
    return list(chosen.values()), left_out

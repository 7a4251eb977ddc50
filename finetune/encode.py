"""Orbits to samples: what networks that stay as they are make of every frame, computed once.

Per sample: ``latents`` (F, C, h, w), unscaled, the posterior's mode; ``embedding`` (F, D) of a base's image encoder (a
new model's is trained along); ``noisy`` (F, C, h, w), of frames with noise added, where noise is added to the input
picture; ``coarse`` (F, C, h, w) of a model with a coarse network, and then the orbit begins at the view that the
network saw; ``views`` (F, 6, S, S), the coarse views themselves, of a new model whose decoder sees them.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.geometry.transform import hflip
from torch import Tensor, nn
from tqdm import tqdm

from finetune.config import RunConfig
from finetune.data import OrbitFrames, RunOrbits, begun_at, draw
from finetune.pictures import recoloured, shrunk
from finetune.processes import MicroBatch, Processes
from finetune.shards import LeftOut, Sample, load_sample, remove_shards, shard_path, write_shard
from mv3d.conventions import to_nerfstudio
from mv3d.errors import Mv3dError
from mv3d.model.alpha import on_white, to_autoencoder
from mv3d.model.autoencoder import encode, encode_frames, encode_views, is_view_conditioned
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.coarse_stage import make_coarse_orbit
from mv3d.model.conditioning import embed_image
from mv3d.model.models import AnyModel

_CHUNK_PIXELS = 8 * 256**2  # encoded together; of SVD's pictures one
_FORMAT = 3  # of what a sample tells


@dataclass(frozen=True, eq=False)
class SampleEncoder(ABC):
    """A run's orbits, and what makes samples of them."""

    model: AnyModel
    config: RunConfig
    orbits: RunOrbits

    @property
    def variants(self) -> list[tuple[int, int]]:
        """All that is to be encoded: which of the entries, and in which of its variants."""
        stage = self.config.diffusion
        count = stage.inputs_per_orbit if self.config.base is None else stage.cache.variants
        return [(k, variant) for k in self.orbits.training for variant in range(count)]

    @property
    def folder(self) -> Path:
        """Where samples are kept; named after the weights that encode and the settings, so others are elsewhere."""
        model, stage = self.model, self.config.diffusion
        settings = asdict(stage.cache) | {"buffer_shards": 0, "seed": self.config.seed, "views": self.config.num_views}
        settings |= {"px": [model.facts.resolution_px, model.output_px]}
        settings |= {"cond": [stage.cond_noise_mean, stage.cond_noise_std]}
        made_with = json.dumps([_FORMAT, settings, self.kind], sort_keys=True)
        digest = weights_digest(*(network for network in self.encoders if network is not None))
        return self.config.run / f"latents-{digest}-{hashlib.sha256(made_with.encode()).hexdigest()[:8]}"

    def key(self, chosen: Sequence[tuple[int, int]]) -> str:
        """Changes with what is in the folders of the chosen variants' orbits, and with the variants."""
        made_of = json.dumps([(*which, asdict(self.orbits.entries[which[0]])) for which in chosen])
        return hashlib.sha256(made_of.encode()).hexdigest()

    def samples(self, chosen: Sequence[tuple[int, int]]) -> Iterator[Sample | LeftOut]:
        """The samples of variants, one after the other; one orbit that cannot be used does not stop the others."""
        for k, variant in chosen:
            try:
                yield self.sample(k, variant)
            except Mv3dError as error:
                yield LeftOut(self.orbits.entries[k].orbit, str(error))

    @property
    @abstractmethod
    def kind(self) -> str | bool:
        """Samples of different kinds do not lie in one folder."""

    @property
    @abstractmethod
    def encoders(self) -> Sequence[nn.Module | None]:
        """What the samples are made by."""

    @torch.no_grad()
    def sample(self, k: int, variant: int) -> Sample:
        """Encode one variant of an entry; equal arguments give equal arrays, whatever training rounds to.

        Raises:
            Mv3dError: if the orbit cannot be used.
        """
        with torch.autocast(self.model.vae.device.type, enabled=False):
            return self._sample(k, variant)

    @abstractmethod
    def _sample(self, k: int, variant: int) -> Sample: ...

    def _changed(self, frames: OrbitFrames, variant: int, generator: torch.Generator) -> OrbitFrames:
        """What a variant shows: the first one the frames as they are."""
        cache, rgba, cameras = self.config.diffusion.cache, frames.rgba, frames.cameras
        if variant and cache.recolour:
            rgba = recoloured(rgba, generator)
        if variant % 2 and cache.flip:
            rgba, cameras = hflip(rgba), tuple(camera.mirrored() for camera in cameras)
        if variant and cache.backgrounds and not self.model.has_alpha:
            colour = torch.rand(3, 1, 1, generator=generator)
            rgb = rgba[:, :3] * rgba[:, 3:] + colour * (1 - rgba[:, 3:])
            rgba = torch.cat([rgb, torch.ones_like(rgba[:, 3:])], dim=1)
        return OrbitFrames(rgba, cameras)


@dataclass(frozen=True, eq=False)
class OrbitEncoder(SampleEncoder):
    """Frame by frame, for SVD's kind."""

    model: OrbitModel

    @property
    def kind(self) -> bool:
        """Whether the decoder sees views."""
        return is_view_conditioned(self.model.vae)

    @property
    def encoders(self) -> Sequence[nn.Module | None]:
        """A new model's image encoder is trained along."""
        image_encoder = None if self.config.base is None else self.model.image_encoder
        return self.model.vae.encoder, self.model.vae.quant_conv, self.model.coarse, image_encoder

    def _sample(self, k: int, variant: int) -> Sample:
        model, config, stage, entry = self.model, self.config, self.config.diffusion, self.orbits.entries[k]
        rng = np.random.default_rng([config.seed, k, variant])
        # A new model sees orbits as they are: all chance is where they begin.
        generator = torch.Generator().manual_seed(0 if config.base is None else int(rng.integers(2**62)))
        frames, start = self.orbits.load(k), 0
        if model.coarse is not None:
            start = int(rng.integers(len(frames.cameras)))
            frames = begun_at(frames, start, self.orbits.num_views)
        frames = self._changed(frames, variant, generator)
        rgba = shrunk(frames.rgba, model.facts.resolution_px)
        device, dtype = model.vae.device, model.vae.dtype
        together = max(1, _CHUNK_PIXELS // rgba.shape[-1] ** 2)
        chunks = [chunk.to(device, dtype) for chunk in rgba.split(together)]
        arrays = {"latents": torch.cat([encode_frames(model.vae, chunk) for chunk in chunks])}
        if config.base is not None:
            arrays["embedding"] = torch.cat([embed_image(model.image_encoder, on_white(c))[:, 0] for c in chunks])
        facts: dict[str, Any] = {"object_id": entry.object_id, "orbit": entry.orbit, "variant": variant, "start": start}
        facts["cameras"] = [to_nerfstudio(camera) for camera in frames.cameras]
        if stage.cond_noise_mean is not None:
            normal = rng.standard_normal(len(rgba))
            sigma = (stage.cond_noise_mean + stage.cond_noise_std * normal).astype("f4")
            np.exp(sigma, out=sigma)
            seen = to_autoencoder(rgba, model.vae.config["in_channels"])
            noise = torch.randn(seen.shape, generator=generator)
            noisy = (seen + torch.from_numpy(sigma)[:, None, None, None] * noise).to(device, dtype)
            arrays["noisy"] = torch.cat([encode(model.vae, chunk).mode() for chunk in noisy.split(together)])
            facts["cond_aug"] = sigma.tolist()
        if model.coarse is not None:
            picture = frames.rgba[0].to(device)
            coarse = make_coarse_orbit(model.coarse, picture, frames.cameras, picture.shape[-1])
            arrays["coarse"] = encode_views(model.vae, coarse.views, model.facts.resolution_px)
            if config.base is None and is_view_conditioned(model.vae):
                arrays["views"] = coarse.views
        return Sample(facts, {name: half(value) for name, value in arrays.items()})


def encode_orbits(encoder: SampleEncoder, processes: Processes) -> Path:
    """Write all shards of a run, those that are missing or of other orbits, mixed; returns where they are."""
    config, folder, variants = encoder.config, encoder.folder, encoder.variants
    mixed = np.random.default_rng([config.seed, len(variants)]).permutation(len(variants))
    size = config.diffusion.cache.samples_per_shard
    count = -(-len(variants) // size)
    if processes.is_main:
        remove_shards(folder, count)
    numbers = range(processes.rank, count, processes.count)
    for number in tqdm(numbers, desc="encoding orbits", unit="shard", disable=not processes.is_main):
        chosen = [variants[i] for i in mixed[number * size : (number + 1) * size]]
        write_shard(shard_path(folder, number), encoder.key(chosen), encoder.samples(chosen))
    processes.wait()
    return folder


class OnDemand:
    """The endless sequence of a run's samples, each of which is made at its first use, and kept in a shard of its own.

    One that was made of something else, was changed, or is damaged is made again.
    """

    def __init__(self, encoder: SampleEncoder, processes: Processes) -> None:
        self._encoder, self._folder, self._variants = encoder, encoder.folder, encoder.variants
        if processes.is_main:
            remove_shards(self._folder, len(self._variants))

    def samples(self, step: int, part: MicroBatch) -> list[Sample]:
        """The samples of a part of a step.

        Raises:
            Mv3dError: if one cannot be made, or cannot be written.
        """
        return [self._sample(n) for n in self._chosen(step)[part.slice]]

    def object_ids(self, step: int) -> list[str]:
        """Which objects the samples of a step show."""
        return [self._encoder.orbits.entries[self._variants[n][0]].object_id for n in self._chosen(step)]

    def close(self) -> None:
        """Nothing is read ahead."""

    def _chosen(self, step: int) -> list[int]:
        config = self._encoder.config
        return draw(config.diffusion.loop.batch_size, len(self._variants), config.seed, step).tolist()

    def _sample(self, number: int) -> Sample:
        which, path = self._variants[number], shard_path(self._folder, number)
        key = self._encoder.key([which])
        sample = load_sample(path, key)
        if sample is None:
            sample = self._encoder.sample(*which)
            write_shard(path, key, iter([sample]))
        return sample


def weights_digest(*modules: nn.Module) -> str:
    """Eight hexadecimal digits that change when any weight does."""
    digest = hashlib.sha256()
    for module in modules:
        for key, value in sorted(module.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:8]


def half(value: Tensor) -> np.ndarray:
    """Numbers as samples keep them, in 16 bits."""
    return value.float().cpu().numpy().astype(np.float16)

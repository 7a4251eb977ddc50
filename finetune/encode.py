"""Orbits to shards of latents: what the autoencoder and the image encoder make of every frame, computed once.

Per sample: ``latents`` (F, C, h, w), unscaled, the posterior's mode; ``embedding`` (F, D) of the image encoder;
``noisy`` (F, C, h, w), of frames with noise added, where noise is added to the input picture; ``coarse``
(F, C, h, w) of a base with a coarse volume, and then the orbit begins at the view that the volume was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from kornia.geometry.transform import hflip
from tqdm import tqdm

from finetune.cache import weights_digest
from finetune.clips import OrbitFrames, begun_at, load_frames
from finetune.config import RunConfig
from finetune.pictures import recoloured
from finetune.processes import Processes
from finetune.shards import LeftOut, Sample, remove_shards, shard_path, write_shard
from mv3d.conventions import to_nerfstudio
from mv3d.dataset import ListedOrbit
from mv3d.errors import Mv3dError
from mv3d.model.alpha import on_white
from mv3d.model.autoencoder import encode, encode_frames, to_autoencoder
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.coarse_stage import make_coarse_orbit
from mv3d.model.conditioning import embed_image

_CHUNK = 8  # frames encoded together
_FORMAT = 2  # of what a sample tells


def encode_orbits(
    model: OrbitModel, config: RunConfig, entries: list[ListedOrbit], folder: Path, processes: Processes
) -> Path:
    """Write all shards of a run below ``folder``, those that are missing or of other orbits; returns where they are.

    The shards' folder is named after the weights that encode and the settings, so others are never mistaken for them;
    each shard knows its orbits by what is in their folders.
    """
    stage = config.diffusion
    settings = asdict(stage.cache) | {"buffer_shards": 0, "px": model.facts.resolution_px, "seed": config.seed}
    settings |= {"cond": [stage.cond_noise_mean, stage.cond_noise_std], "views": config.num_views}
    made_with = json.dumps([_FORMAT, settings], sort_keys=True)
    networks = [model.vae, model.image_encoder, *([model.volume] if model.volume is not None else [])]
    digest = f"{weights_digest(*networks)}-{hashlib.sha256(made_with.encode()).hexdigest()[:8]}"
    shards = folder / f"latents-{digest}"
    shards.mkdir(parents=True, exist_ok=True)
    if processes.count == 1:
        for partial in shards.glob(".partial-*"):  # what a killed run was writing
            partial.unlink()
    work = [(k, variant) for k in range(len(entries)) for variant in range(stage.cache.variants)]
    mixed = np.random.default_rng([config.seed, len(work)]).permutation(len(work))
    size = stage.cache.samples_per_shard
    if processes.is_main:
        remove_shards(shards, -(-len(work) // size))
    numbers = range(processes.rank, -(-len(work) // size), processes.count)
    for number in tqdm(numbers, desc="encoding orbits", unit="shard", disable=not processes.is_main):
        chosen = [work[i] for i in mixed[number * size : (number + 1) * size]]
        made_of = json.dumps([(*which, asdict(entries[which[0]])) for which in chosen])
        key = hashlib.sha256(made_of.encode()).hexdigest()
        write_shard(shard_path(shards, number), key, _samples(model, config, entries, chosen))
    return shards


def _samples(
    model: OrbitModel, config: RunConfig, entries: list[ListedOrbit], chosen: list[tuple[int, int]]
) -> Iterator[Sample | LeftOut]:
    for k, variant in chosen:
        try:
            frames = load_frames(entries[k], model.facts.resolution_px)
            yield encode_orbit(model, config, frames, entries[k].object_id, (k, variant))
        except Mv3dError as error:  # one orbit that cannot be used does not stop the others
            yield LeftOut(entries[k].orbit, str(error))


@torch.no_grad()
def encode_orbit(
    model: OrbitModel, config: RunConfig, frames: OrbitFrames, object_id: str, which: tuple[int, int]
) -> Sample:
    """Encode one variant of an orbit; equal arguments give equal arrays."""
    stage = config.diffusion
    rng = np.random.default_rng([config.seed, *which])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    variant = which[1]
    start = 0
    if model.volume is not None:
        assert config.num_views is not None
        start = int(rng.integers(len(frames.cameras)))
        frames = begun_at(frames, start, config.num_views)
    rgba, cameras = frames.rgba, frames.cameras
    if variant and stage.cache.recolour:
        rgba = recoloured(rgba, generator)
    if variant % 2 and stage.cache.flip:
        rgba, cameras = hflip(rgba), tuple(camera.mirrored() for camera in cameras)
    if variant and stage.cache.backgrounds and model.vae.config["in_channels"] == 3:
        colour = torch.rand(3, 1, 1, generator=generator)
        rgb = rgba[:, :3] * rgba[:, 3:] + colour * (1 - rgba[:, 3:])
        rgba = torch.cat([rgb, torch.ones_like(rgba[:, 3:])], dim=1)
    device, dtype = model.vae.device, model.vae.dtype
    chunks = [chunk.to(device, dtype) for chunk in rgba.split(_CHUNK)]
    arrays = {
        "latents": torch.cat([encode_frames(model.vae, chunk) for chunk in chunks]),
        "embedding": torch.cat([embed_image(model.image_encoder, on_white(c))[:, 0] for c in chunks]),
    }
    whole = [to_nerfstudio(camera) for camera in cameras]
    facts = {"object_id": object_id, "variant": variant, "cameras": whole, "start": start}
    if stage.cond_noise_mean is not None:
        normal = rng.standard_normal(len(rgba))
        sigma = (stage.cond_noise_mean + stage.cond_noise_std * normal).astype("f4")
        np.exp(sigma, out=sigma)
        seen = to_autoencoder(rgba, model.vae.config["in_channels"])
        noise = torch.randn(seen.shape, generator=generator)
        noisy = (seen + torch.from_numpy(sigma)[:, None, None, None] * noise).to(device, dtype)
        arrays["noisy"] = torch.cat([encode(model.vae, chunk).mode() for chunk in noisy.split(_CHUNK)])
        facts["cond_aug"] = sigma.tolist()
    if model.volume is not None:
        picture = rgba[0].to(device)
        coarse = make_coarse_orbit(model.volume, picture, cameras, rgba.shape[-1])
        arrays["coarse"] = coarse.latents(model.vae, rgba.shape[-1])
    return Sample(facts, {name: value.float().cpu().numpy().astype(np.float16) for name, value in arrays.items()})

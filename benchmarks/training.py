"""Throughput of the trainer beside a plain loop, on one tiny model and the same orbits.

Run it with ``python -m benchmarks.training``.

The plain loop does in every step what public fine-tuners of SVD do: encode the frames with the autoencoder, and the
picture once more with noise added to it, and with the image encoder; AdamW as torch makes it by default; averages taken
parameter by parameter. Its frames are in memory already, which theirs are not. Both make the same update of the same
UNet. They take turns, so that other work on the machine touches both alike; medians are compared, of wall time and of
the processor's.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from finetune.config import RunConfig
from finetune.data import begun_at, load_frames
from finetune.diffusion_config import Cache, DiffusionStage
from finetune.ema import Ema
from finetune.loop import make_optimizer
from finetune.loop_config import LoopConfig
from finetune.stages.diffusion import DiffusionTraining
from mv3d.cameras import static_orbit
from mv3d.dataset import list_orbits
from mv3d.model.alpha import to_autoencoder
from mv3d.model.autoencoder import encode, encode_frames
from mv3d.model.checkpoints import ModelFacts, OrbitModel, save_model
from mv3d.model.conditioning import Conditions, drop_conditions, embed_image, poses_of
from mv3d.model.denoiser import Denoiser, sample_sigmas
from mv3d.model.unet import OrbitUNet
from mv3d.orbit import Facts, Orbit, save_orbit


def main() -> None:
    """Print one JSON object of medians in seconds, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="steps of each kind, after one that is not counted")
    parser.add_argument("--size", type=int, default=64, help="side of the frames in pixels")
    parser.add_argument("--views", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = prepare(Path(folder), options.size, options.views)
        print(json.dumps(_compare(config, options.repeats), indent=1))


def _compare(config: RunConfig, repeats: int) -> dict[str, float]:
    stage = DiffusionTraining(config)
    plain_model = copy.deepcopy(stage.model)
    ours, plain = _our_step(stage, config), _plain_step(plain_model, config)
    seconds: dict[str, list[float]] = {}
    for step in range(repeats + 1):
        for name, run in (("load", stage.clips.samples), ("ours", ours), ("plain", plain)):
            wall, processor = time.perf_counter(), time.process_time()
            run(step)
            seconds.setdefault(f"{name}_s", []).append(time.perf_counter() - wall)
            seconds.setdefault(f"{name}_cpu_s", []).append(time.process_time() - processor)
        print(f"step {step}: ours {seconds['ours_s'][-1]:.3f} s, plain {seconds['plain_s'][-1]:.3f} s", file=sys.stderr)
    stage.close()
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    images = config.diffusion.loop.batch_size * stage.images_per_sample
    return {name: round(value, 4) for name, value in median.items()} | {
        "ratio": round(median["plain_s"] / median["ours_s"], 2),
        "cpu_ratio": round(median["plain_cpu_s"] / median["ours_cpu_s"], 2),
        "our_images_per_s": round(images / median["ours_s"], 1),
        "loader_images_per_s": round(images / median["load_s"], 1),
    }


def _our_step(stage: DiffusionTraining, config: RunConfig) -> Callable[[int], None]:
    optimizer = make_optimizer(stage.network, config.diffusion.loop)
    ema = Ema(stage.network)

    def run(step: int) -> None:
        loss, _ = stage.loss(step, torch.Generator().manual_seed(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(0.999)

    return run


def _plain_step(model: OrbitModel, config: RunConfig) -> Callable[[int], None]:
    stage, unet, scale = config.diffusion, model.unet, model.vae.config["scaling_factor"]
    mean = stage.cond_noise_mean
    assert mean is not None
    num_views = config.num_views
    assert num_views is not None
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.diffusion.loop.learning_rate)
    ema = {name: value.clone() for name, value in unet.state_dict().items()}
    orbits = [load_frames(entry, model.facts.resolution_px) for entry in list_orbits(config.data).orbits]

    def run(step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        size = config.diffusion.loop.batch_size
        chosen = [begun_at(orbits[(step * size + k) % len(orbits)], k, num_views) for k in range(size)]
        with torch.no_grad():
            latents = torch.stack([encode_frames(model.vae, orbit.rgba) for orbit in chosen])
            pictures = to_autoencoder(torch.stack([orbit.rgba[0] for orbit in chosen]), 3)
            embedding = embed_image(model.image_encoder, pictures / 2 + 0.5)
            cond_aug = (mean + stage.cond_noise_std * torch.randn(size, generator=generator)).exp()
            noise = torch.randn(pictures.shape, generator=generator)
            noisy = encode(model.vae, pictures + cond_aug.view(-1, 1, 1, 1) * noise).mode()
        ids = torch.tensor([model.facts.added_time_ids] * size)
        ids[:, -1] = cond_aug
        conditions = Conditions(
            image_latents=noisy,
            image_embedding=embedding,
            added_time_ids=ids,
            poses=torch.stack([poses_of(orbit.cameras) for orbit in chosen]),
        )
        conditions = drop_conditions(conditions, torch.rand(size, generator=generator) < 0.1)
        sigma = sample_sigmas(size, stage.p_mean, stage.p_std, generator)
        noise = torch.randn(latents.shape, generator=generator)
        Denoiser(unet, scale).loss(latents * scale, sigma, noise, conditions).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in unet.state_dict().items():
                ema[name].mul_(0.999).add_(value, alpha=0.001)

    return run


def prepare(folder: Path, size_px: int, num_views: int) -> RunConfig:
    """A tiny model of SVD's kind, with its autoencoder's proportions, and four orbits of noise."""
    torch.manual_seed(0)
    unet = OrbitUNet(
        block_out_channels=(32, 64, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * 2 + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 2,
        num_attention_heads=(1, 2, 2),
        layers_per_block=1,
        cross_attention_dim=32,
        pose_embed_dim=512,
    )
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64, 64, 64),  # pyright: ignore[reportArgumentType]  (tuples of any length)
        down_block_types=("DownEncoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        layers_per_block=2,
    )
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        projection_dim=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=64,
        patch_size=16,
    )
    facts = ModelFacts("tiny", "CC0-1.0", resolution_px=size_px, num_views=num_views)
    save_model(OrbitModel(unet, vae, CLIPVisionModelWithProjection(vision), facts), folder / "base")
    rng = np.random.default_rng(0)
    lines = []
    for k in range(4):
        frames = rng.random((num_views, size_px, size_px, 4), dtype=np.float32)
        orbit = Orbit(frames, static_orbit(num_views, 10, size_px=size_px), Facts(input_index=0))
        save_orbit(orbit, folder / f"orbits/o{k}/0", for_people=False)
        lines.append(json.dumps({"object_id": f"o{k}", "split": "train", "orbits": 1}))
    (folder / "orbits/manifest.jsonl").write_text("\n".join(lines) + "\n")
    stage = DiffusionStage(
        loop=LoopConfig(steps=100, batch_size=2, learning_rate=1e-5, adam_betas=(0.9, 0.999)),
        p_mean=0.7,
        p_std=1.6,
        condition_dropout=0.1,
        cond_noise_mean=-3.0,
        cond_noise_std=0.5,
        cache=Cache(samples_per_shard=4),
    )
    return RunConfig(
        data=(folder / "orbits",),
        run=folder / "run",
        diffusion=stage,
        base=str(folder / "base"),
        init="base",
        model_name="tiny",
        num_views=num_views,
        validation_objects=0,
    )


if __name__ == "__main__":
    main()

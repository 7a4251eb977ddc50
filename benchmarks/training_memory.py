"""What each memory option of a fine-tuning takes: measured at a small width on this CPU, computed at SVD's own.

    python -m benchmarks.training_memory          # the table of docs/training.md; a few minutes
    python -m benchmarks.training_memory --small  # without SVD's width

Measured is the peak of all that torch allocates for network, optimizer, averages and a step of the trainer's loss, one
that is not the first; computed is what a dry run says, first of the same step, then of ``configs/svd_mv_lora.yaml`` on
a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune.base_storage import BaseStorage, MainMemoryWeight, StoredProduct, store_base
from finetune.dry_run import ClipSize, describe, estimate
from finetune.ema import Ema
from finetune.loop import make_optimizer
from finetune.loop_config import LoopConfig
from finetune.read_config import load_config
from finetune.recompute import recompute_layers
from mv3d.model.conditioning import Conditions
from mv3d.model.denoiser import Denoiser
from mv3d.model.lora import add_lora
from mv3d.model.unet import OrbitUNet

CLIP = ClipSize(num_views=7, latent_px=24)
SMALL: dict[str, Any] = {
    "block_out_channels": (64, 128, 256, 256),
    "num_attention_heads": (1, 2, 4, 4),
    "cross_attention_dim": 64,
    "layers_per_block": 1,
    "pose_embed_dim": 32,
}
"""SVD's levels at a fifth of its width."""


@dataclass(frozen=True)
class MemoryOptions:
    """How memory is saved; the defaults save none."""

    storage: BaseStorage = "float32"
    checkpointing: bool = False
    lora: bool = True
    batch_size: int = 1
    accumulate: int = 1

    @property
    def loop(self) -> LoopConfig:
        """The trainer's settings."""
        return LoopConfig(
            steps=1,
            batch_size=self.batch_size,
            learning_rate=1e-4,
            bfloat16=True,
            checkpointing=self.checkpointing,
            accumulate=self.accumulate,
        )


ROWS: dict[str, MemoryOptions] = {
    "all weights trained": MemoryOptions(lora=False),
    "all weights trained, `checkpointing`": MemoryOptions(lora=False, checkpointing=True),
    "LoRA": MemoryOptions(),
    "LoRA, `base_storage: bfloat16`": MemoryOptions("bfloat16"),
    "LoRA, `bfloat16`, two clips": MemoryOptions("bfloat16", batch_size=2),
    "LoRA, `bfloat16`, two clips, `accumulate: 2`": MemoryOptions("bfloat16", batch_size=2, accumulate=2),
    "LoRA, `bfloat16`, `checkpointing`": MemoryOptions("bfloat16", checkpointing=True),
    "LoRA, `float8`, `checkpointing`": MemoryOptions("float8", checkpointing=True),
    "LoRA, `cpu`, `checkpointing`": MemoryOptions("cpu", checkpointing=True),
}


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="leave SVD's width out")
    options = parser.parse_args()
    print("| options | measured, MiB | computed, MiB | computed / measured | SVD on a GPU, computed, GiB |")
    print("| --- | --- | --- | --- | --- |")
    for name, row in ROWS.items():
        measured, computed = measured_peak(row), computed_peak(row)
        full = "" if options.small else f"{full_width(row):.1f}"
        numbers = f"{measured / 2**20:.0f} | {computed / 2**20:.0f} | {computed / measured:.2f} | {full}"
        print(f"| {name} | {numbers} |", flush=True)


def make_network(options: MemoryOptions, sizes: dict[str, Any] = SMALL) -> OrbitUNet:
    """The network of some options, without what is done to its frozen weights."""
    unet = OrbitUNet(**sizes)
    if options.lora:
        add_lora(unet, 4, 4, "temporal_attention")
    return unet


def measured_peak(options: MemoryOptions, sizes: dict[str, Any] = SMALL, clip: ClipSize = CLIP) -> int:
    """Bytes at the peak of a real step on the CPU, the second, less what is in main memory where a GPU computes."""
    loop = options.loop
    gc.collect()
    gc.freeze()  # what was made before must not be freed meanwhile: it would be taken off
    with torch.profiler.profile(profile_memory=True) as profiler:
        unet = make_network(options, sizes)
        store_base(unet, options.storage, "cpu")
        if loop.checkpointing:
            recompute_layers(unet)
        optimizer, ema = make_optimizer(unet, loop), Ema(unet)
        # The moments come with the first step, for which the smallest clip will do: then one of the true size.
        for size in (ClipSize(num_views=1, latent_px=8), clip):
            for _ in range(loop.accumulate):
                _loss(unet, size, loop.part_size(1)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.update(0.99)
    gc.unfreeze()
    result: Any = profiler.profiler
    events = [event for event in result.kineto_results.events() if event.name() == "[memory]"]
    changes = np.array([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    # Making the network takes more for a moment than training it; of the steps only the second is whole.
    peak = int(np.cumsum(changes)[len(changes) // 2 :].max())
    kept = [module.kept for module in unet.modules() if isinstance(module, StoredProduct)]
    return peak - sum(weight.values.nbytes for weight in kept if isinstance(weight, MainMemoryWeight))


def computed_peak(options: MemoryOptions, sizes: dict[str, Any] = SMALL, clip: ClipSize = CLIP) -> int:
    """Bytes that a dry run says of the same steps."""
    unet = make_network(options, sizes)
    return estimate(unet, clip, options.loop, storage=options.storage, on_gpu=False).memory


def full_width(options: MemoryOptions) -> float:
    """GiB that a dry run says of SVD with these options."""
    config = load_config(Path("configs/svd_mv_lora.yaml"))
    lora = config.diffusion.lora
    assert lora is not None
    stage = replace(
        config.diffusion,
        lora=replace(lora, base_storage=options.storage) if options.lora else None,
        loop=replace(options.loop, adam_betas=config.diffusion.loop.adam_betas),
    )
    found = describe(replace(config, diffusion=stage))
    print(json.dumps(found["memory_gib"]), file=sys.stderr)
    return found["memory_gib"]["memory"]


def _loss(unet: OrbitUNet, clip: ClipSize, batch: int) -> torch.Tensor:
    side, config = clip.latent_px, unet.config
    conditions = Conditions(
        image_latents=torch.zeros(batch, 4, side, side),
        image_embedding=torch.zeros(batch, 1, config["cross_attention_dim"]),
        added_time_ids=torch.zeros(batch, 3),
        poses=torch.zeros(batch, clip.num_views, 2),
    )
    latents = torch.zeros(batch, clip.num_views, 4, side, side)
    with torch.autocast("cpu", torch.bfloat16):
        return Denoiser(unet).loss(latents, torch.ones(batch), torch.ones_like(latents), conditions).mean()


if __name__ == "__main__":
    main()

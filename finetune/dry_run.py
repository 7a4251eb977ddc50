"""What a run would take, before it takes it: parameters, memory, card, time, worked out on tensors without storage."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from eval.metrics.lpips import Lpips
from finetune.base_storage import BaseStorage, store_base, stored_bytes
from finetune.beside import Beside, BesideDiffusion, count_parameters
from finetune.config import RunConfig
from finetune.diffusion_config import DiffusionStage
from finetune.loop_config import LoopConfig
from finetune.networks import make_unet, new_unet_config
from finetune.recompute import recompute_layers
from finetune.step_memory import measure_step, norms_as_on_a_gpu, weightless, without_storage
from finetune.wan_dry_run import looks_like_wan, make_wan_network, wan_loss
from mv3d.errors import Mv3dError
from mv3d.model.checkpoints import resolve_model
from mv3d.model.conditioning import Conditions
from mv3d.model.denoiser import Denoiser, weighted_error
from mv3d.model.hub import would_be_downloaded
from mv3d.model.lora import OrbitNetwork, add_lora, train_pose_columns
from mv3d.model.stability import read_unet_config
from mv3d.model.unet import OrbitUNet
from mv3d.model.wan_transformer import OrbitTransformer
from mv3d.model.weights import load_json

_GIB = 2**30
_MOMENT_BYTES = {"adamw": 8, "adamw_8bit": 2, "muon": 4}
"""Per parameter; the few that muon leaves to AdamW have 8."""
_USED_RATE = 0.4
"""Share of a processor's rate in large products that a training step is taken to reach."""
_CARDS_GB = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 192)
_SPARE = (1.1, 1.0)
"""A tenth, and one GiB, for what a card keeps: its driver's own, gaps between tensors, workspaces of convolutions."""


@dataclass(frozen=True)
class ClipSize:
    """The sizes of one sample of the diffusion stage."""

    num_views: int
    latent_px: int


@dataclass(frozen=True)
class StepCost:
    """Parameters in numbers, memory of one process in bytes, work of one step in floating-point operations."""

    parameters: int
    trained: int
    weights: int
    beside: int
    """Of networks that are only used: LPIPS, and a new model's autoencoder and coarse network."""
    gradients: int
    """Of those that are there when memory is at its peak: all, where a batch is taken in parts."""
    moments: int
    ema: int
    activations: int
    flops: int

    @property
    def memory(self) -> int:
        """All of it, at the moment of a step at which it is most."""
        return self.weights + self.beside + self.gradients + self.moments + self.ema + self.activations


def estimate(
    network: OrbitNetwork,
    clip: ClipSize,
    loop: LoopConfig,
    processes: int = 1,
    beside: Beside | None = None,
    *,
    storage: BaseStorage = "float32",
    on_gpu: bool = True,
) -> StepCost:
    """Work out a step of a network, which is left without numbers; parameters that require gradients are trained.

    Args:
        network: on any device, with its adapters.
        clip: that it is trained on.
        loop: of its stage.
        processes: that divide a batch.
        beside: what is trained or used along.
        storage: of what is frozen.
        on_gpu: a CPU keeps less on the way in bfloat16.

    Raises:
        Mv3dError: if a batch cannot be divided among so many processes.
    """
    if processes < 1:
        raise Mv3dError(f"{processes} processes: give 1 or more", argument="processes")
    beside = beside or Beside()
    batch, shards = loop.part_size(processes), processes if loop.shard else 1
    count = sum(p.numel() for part in (network, beside.trained) for p in part.parameters())
    with weightless():
        for part in (network, beside):
            without_storage(part)
            if loop.bfloat16 and on_gpu:
                norms_as_on_a_gpu(part)
        store_base(network, storage, "cpu")
        if loop.checkpointing:
            recompute_layers(network)
        parameters = [*network.parameters(), *beside.trained.parameters()]
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        step = measure_step(
            lambda: _loss(network, clip, batch, beside, bfloat16=loop.bfloat16),
            [*network.parameters(), *beside.parameters()],
            adds=loop.accumulate > 1,
            shards=shards,
        )
        weights = stored_bytes(network) + stored_bytes(beside.trained)
    exchanged = 4 * trained if processes > 1 and not loop.shard else 0  # DDP gathers gradients in buckets of its own
    return StepCost(
        parameters=count,
        trained=trained,
        weights=weights // shards,
        beside=4 * beside.frozen,
        gradients=step.gradients + exchanged,
        moments=_MOMENT_BYTES[loop.optimizer] * trained // shards,
        ema=4 * trained // shards,
        activations=step.activations,
        flops=step.flops * loop.accumulate,
    )


def describe(config: RunConfig, processes: int = 1) -> dict[str, Any]:
    """What ``--dry-run`` prints of a config besides itself."""
    loop = config.diffusion.loop
    network, beside, clip, source = _parts(config)
    lora = config.diffusion.lora
    storage = "float32" if lora is None else lora.base_storage
    found = estimate(network, clip, loop, processes, beside, storage=storage)
    if config.diffusion.distillation is not None:
        found = _with_teacher(found, config.diffusion)
    rate, device = _measured_rate(loop.bfloat16)
    seconds = found.flops / (_USED_RATE * rate)
    return {
        "network": source,
        "parameters_million": round(found.parameters / 1e6, 2),
        "trained_million": round(found.trained / 1e6, 2),
        "memory_gib": {
            name: round(getattr(found, name) / _GIB, 3)
            for name in ("weights", "beside", "gradients", "moments", "ema", "activations", "memory")
        },
        "card": _card(found.memory, processes),
        "tera_flop_per_step": round(found.flops / 1e12, 4),
        "steps_per_day": float(f"{86400 / seconds:.3g}"),  # not rounded to 0, which SVD on a busy CPU would be
        "steps_per_day_assumes": f"{_USED_RATE:.0%} of {rate / 1e12:.2f} TFLOP/s, which {device} does now in products",
    }


def _card(memory: int, processes: int) -> str:
    factor, more = _SPARE
    needed = factor * memory / _GIB + more
    enough = next((size for size in _CARDS_GB if size >= needed), None)
    each = "" if processes == 1 else f" for each of {processes} processes"
    if enough is None:
        return f"none suffices{each}, {needed:.0f} GiB are needed: raise loop.accumulate, or shard among more processes"
    return f"{enough} GB suffice{each}, {needed:.1f} GiB are needed with some to spare"


def _parts(config: RunConfig) -> tuple[OrbitNetwork, Beside, ClipSize, str]:
    if config.base is None:
        return _new(config)
    return _of_wan(config, config.base) if looks_like_wan(config.base) else _based(config, config.base)


def _of_wan(config: RunConfig, base: str) -> tuple[OrbitTransformer, Beside, ClipSize, str]:
    assert config.num_views is not None
    network, latent_size, source = make_wan_network(config, base)
    with torch.device("meta"):
        lpips = count_parameters(Lpips("alex")) if config.validation_objects else 0
    return network, Beside(frozen=lpips), ClipSize(config.num_views, latent_size), source


def _new(config: RunConfig) -> tuple[OrbitUNet, Beside, ClipSize, str]:
    with torch.device("meta"):
        size = ClipSize(21, config.encoded_px // 8)
        return make_unet(config), BesideDiffusion(config), size, "diffusion stage"


def _based(config: RunConfig, base: str) -> tuple[OrbitUNet, Beside, ClipSize, str]:
    stage, num_views = config.diffusion, config.num_views
    assert num_views is not None
    known, source, size_px = _base_config(base)
    if config.init == "random":
        known = new_unet_config(known, stage)
    has_poses = bool(known.get("pose_embed_dim"))
    if not known.get("coarse_channels") and stage.distillation is None:
        width = known.get("addition_time_embed_dim", 256)
        known["pose_embed_dim"] = (known.get("pose_embed_dim") or 2 * width) if stage.conditions.poses else 0
        known["input_last"] = stage.conditions.input_last
        if stage.conditions.cond_aug_only:
            known["projection_class_embeddings_input_dim"] = width
    with torch.device("meta"):
        unet = OrbitUNet(**known)
        lpips = count_parameters(Lpips("alex")) if config.validation_objects else 0
    if stage.lora is not None:
        add_lora(unet, stage.lora.rank, stage.lora.alpha, stage.lora.targets)
        if known.get("pose_embed_dim") and not has_poses:
            train_pose_columns(unet)
    beside = Beside(frozen=lpips)  # a base's encoders are away during a step
    return unet, beside, ClipSize(num_views, (config.resolution_px or size_px) // 8), source


def _with_teacher(found: StepCost, stage: DiffusionStage) -> StepCost:
    """Add a teacher's two estimates, as it is guided, and the target's one; a copy of the weights unless by LoRA."""
    forward = found.flops // (4 if stage.loop.checkpointing else 3)  # the way back takes two, or three with all anew
    copied = 0 if stage.lora is not None else found.weights
    return replace(found, weights=found.weights + copied, flops=found.flops + 3 * forward)


def _base_config(base: str) -> tuple[dict[str, Any], str, int]:
    """A UNet's config, where it is from, and the pictures' size; what is only on the hub is taken to be SVD's."""
    if would_be_downloaded(base):
        return {}, f"{base}, taken to be of SVD's size (it is not here to be read)", 576
    place = resolve_model(base)
    if place.is_file():
        return read_unet_config(place), str(base), 576
    config = load_json(place / "unet" / "config.json")
    facts = load_json(place / "model_index.json").get("mv3d", {})
    return {k: v for k, v in config.items() if not k.startswith("_")}, str(base), facts.get("resolution_px", 576)


def _loss(network: OrbitNetwork, clip: ClipSize, batch: int, beside: Beside, *, bfloat16: bool) -> Tensor:
    if isinstance(network, OrbitTransformer):
        return wan_loss(network, clip.num_views, clip.latent_px, batch, bfloat16=bfloat16)
    return _denoising_loss(network, clip, batch, beside, bfloat16=bfloat16)


def _denoising_loss(unet: OrbitUNet, clip: ClipSize, batch: int, beside: Beside, *, bfloat16: bool) -> Tensor:
    config, size = unet.config, clip.latent_px
    channels = config["out_channels"]
    conditions = Conditions(
        image_latents=torch.empty(batch, config["in_channels"] - channels, size, size),
        image_embedding=torch.empty(batch, 1, config["cross_attention_dim"]),
        added_time_ids=torch.empty(
            batch, config["projection_class_embeddings_input_dim"] // config["addition_time_embed_dim"]
        ),
        poses=torch.empty(batch, clip.num_views, 2) if config["pose_embed_dim"] else None,
        coarse_latents=torch.empty(batch, clip.num_views, channels, size, size) if config["coarse_channels"] else None,
    )
    latents, sigma = torch.empty(batch, clip.num_views, channels, size, size), torch.empty(batch)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        embedding = beside.embedding(batch)
        if embedding is not None:
            conditions = replace(conditions, image_embedding=embedding)
        denoised = Denoiser(unet)(latents + sigma.view(-1, 1, 1, 1, 1) * torch.empty_like(latents), sigma, conditions)
        return weighted_error(denoised, latents, sigma).mean() + beside.loss(denoised)


def _measured_rate(bfloat16: bool) -> tuple[float, str]:
    """Operations per second of a large product on this machine, and the machine's name."""
    cuda = torch.cuda.is_available()
    device, side = ("cuda", 8192) if cuda else ("cpu", 1024)
    a = torch.ones(side, side, device=device, dtype=torch.bfloat16 if bfloat16 else torch.float32)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        product = a @ a
        float(product[0, 0])  # waits for it
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best, torch.cuda.get_device_name() if cuda else f"this CPU ({torch.get_num_threads()} threads)"

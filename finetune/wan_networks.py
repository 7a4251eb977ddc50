"""Wan as a base: its transformer as the config wants it to be trained, and what of a config is not for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from finetune.base_storage import store_base
from finetune.config import RunConfig
from finetune.diffusion_config import Conditioning, DiffusionStage
from mv3d.errors import Mv3dError
from mv3d.model.facts import ModelFacts
from mv3d.model.hub import resolve_model
from mv3d.model.lora import add_lora, train_pose_columns
from mv3d.model.wan_checkpoints import WanModel, is_wan_folder, load_wan
from mv3d.model.wan_transformer import KEPT_IN_FLOAT32, OrbitTransformer, posed
from mv3d.model.wan_video import count_latents

_KEPT_IN_TRAINING = (*KEPT_IN_FLOAT32, "norm_q", "norm_k", "patch_embedding")
"""Norms, and what has the pose columns."""


@dataclass(frozen=True, eq=False)
class WanTrainee:
    """A model as its training begins."""

    model: WanModel
    networks: OrbitTransformer
    """Of the model; what does not require gradients stays as it is."""
    base_facts: ModelFacts
    pose_base: Tensor | None = None
    """The pose columns before training, where a LoRA has to bring its own."""


def is_wan(config: RunConfig) -> bool:
    """Whether a run's base is Wan; one on the hub is downloaded."""
    return config.base is not None and is_wan_folder(resolve_model(config.base))


def check_wan_config(config: RunConfig) -> None:
    """Refuse what would be read and not heeded.

    Raises:
        Mv3dError: for settings of SVD's network, its conditions or its noise, or views that are not 4k + 1.
    """
    stage, plain = config.diffusion, DiffusionStage(config.diffusion.loop)
    assert config.num_views is not None
    count_latents(config.num_views)
    for is_given, what in (
        (config.init == "random", "init: random: say init: base"),
        (stage.distillation is not None, "diffusion.distillation"),
        (stage.conditions != Conditioning(poses=stage.conditions.poses), "diffusion.conditions but poses"),
        (stage.cond_noise_mean != plain.cond_noise_mean, "diffusion.cond_noise_mean"),
        (stage.loop.compile, "diffusion.loop.compile"),
        (stage.loop.shard, "diffusion.loop.shard"),
    ):
        if is_given:
            raise Mv3dError(f"{config.base} is Wan, for which there is no {what}; leave it out")
    if stage.lora is not None and stage.lora.targets == "temporal_attention":
        raise Mv3dError(
            "diffusion.lora.targets temporal_attention: Wan attends to all views at once; give attention, or all"
        )


def make_wan_trainee(config: RunConfig, device: torch.device | str = "cpu") -> WanTrainee:
    """Load the base and get its transformer ready to be trained.

    Raises:
        Mv3dError: if the base cannot be loaded, or as `check_wan_config`.
    """
    assert config.base is not None
    assert config.num_views is not None
    check_wan_config(config)
    stage, place = config.diffusion, resolve_model(config.base)
    storage = "float32" if stage.lora is None else stage.lora.base_storage
    numbers = torch.float32 if storage == "float32" else torch.bfloat16  # at once: in 32 bits they are 19 GiB
    name = place.name if Path(config.base).expanduser().exists() else config.base
    base = load_wan(place, name, "cpu", numbers, _KEPT_IN_TRAINING)
    network = posed(base.transformer, poses=stage.conditions.poses).train().requires_grad_(stage.lora is None)
    facts = replace(base.facts, name=config.model_name, num_views=config.num_views, turns=config.turns)
    if config.resolution_px is not None:
        facts = replace(facts, resolution_px=config.resolution_px)
    model = replace(base, transformer=network, facts=facts)
    pose_base = None
    if stage.lora is not None:
        columns = network.pose_matrix[:, network.pose_start :]
        if columns.shape[1] > 0 and not bool(columns.any()):
            pose_base = columns.detach().clone().to(device)
        add_lora(network, stage.lora.rank, stage.lora.alpha, stage.lora.targets, config.seed)
        if pose_base is not None:
            train_pose_columns(network)
        store_base(network, storage, device)
    _give_norms_their_numbers(network)
    for part in model.large_networks:
        nn.Module.to(part, device)
    return WanTrainee(model, network, base.facts, pose_base)


def _give_norms_their_numbers(network: nn.Module) -> None:
    """Have norms of queries and keys, which autocast makes in bfloat16, computed in their weights' type."""
    for module in network.modules():
        if isinstance(module, nn.RMSNorm):
            module.register_forward_pre_hook(lambda norm, given: (given[0].to(norm.weight.dtype),))

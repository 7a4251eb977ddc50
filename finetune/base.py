"""The model that a recipe begins with: the base's weights or new ones, the conditions, how the result is sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from finetune.consistency import sampling_facts
from finetune.recipe import NewUNet, Recipe
from mv3d.model.checkpoints import ModelFacts, OrbitModel, load_model
from mv3d.model.surgery import reconditioned
from mv3d.model.unet import OrbitUNet


def load_base(recipe: Recipe, device: torch.device) -> OrbitModel:
    """The model that a recipe begins with; its UNet is of random weights where the recipe says so."""
    base, wanted = load_model(recipe.base, device), recipe.network
    if wanted is None:
        return base
    known = {key: value for key, value in base.unet.config.items() if not key.startswith("_")}
    config = new_unet_config(known, wanted)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        unet = OrbitUNet(**config)
    torch.nn.Module.to(unet, device)  # the class annotates its own `to` wrongly
    facts = replace(
        base.facts,
        num_steps=wanted.sampling_steps,
        sigma_min=wanted.sigma_min,
        sigma_max=wanted.sigma_max,
        guidance="constant",
        guidance_low=1.0,
        guidance_high=1.0,
    )
    return replace(base, unet=unet, volume=None, facts=facts)


def new_unet_config(known: Mapping[str, Any], wanted: NewUNet) -> dict[str, Any]:
    """The config of the base's UNet with the sizes that are wanted."""
    levels = len(wanted.channels)
    return dict(known) | {
        "block_out_channels": wanted.channels,
        "num_attention_heads": wanted.heads,
        "layers_per_block": wanted.layers_per_block,
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * (levels - 1) + ("DownBlockSpatioTemporal",),
        "up_block_types": ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
        "pose_embed_dim": 0,
        "coarse_channels": 0,
        "coarse_mean": False,
    }


def adapted_model(base: OrbitModel, recipe: Recipe) -> OrbitModel:
    """The base with the recipe's conditions, untrained as these are, and with the facts to sample it by."""
    wanted, unet = recipe.conditions, base.unet
    if recipe.distillation is None:
        unet = reconditioned(unet, poses=wanted.poses, cond_aug_only=wanted.cond_aug_only, input_last=wanted.input_last)
    turns = recipe.turns if recipe.distillation is None else base.facts.turns  # a student does what its teacher does
    facts = replace(base.facts, name=recipe.model_name, num_views=recipe.num_views, turns=turns)
    facts = replace(facts, **sampling_facts(base.facts, recipe))
    if recipe.resolution_px is not None:
        facts = replace(facts, resolution_px=recipe.resolution_px)
    if wanted.cond_aug_only and len(facts.added_time_ids) > 1:
        facts = _sampled_as_sv3d(facts)
    return replace(base, unet=unet.train(), facts=facts)


def _sampled_as_sv3d(facts: ModelFacts) -> ModelFacts:
    """SV3D, section 3 and generative-models' sv3d_p.yaml."""
    return replace(facts, added_time_ids=(1e-5,), num_steps=50, guidance="triangle", guidance_high=2.5)

"""From a model's name to one that is ready to work: found, loaded, changed by LoRAs, placed as the machine allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mv3d.errors import Mv3dError
from mv3d.model.autoencoder import RgbaAutoencoder
from mv3d.model.coarse import CoarseNet
from mv3d.model.hub import resolve_model
from mv3d.model.lora import LoraUse, with_loras
from mv3d.model.models import AnyModel, Model, load_any_model
from mv3d.model.placement import (
    Placement,
    asked_placement,
    compile_network,
    compute_in_float32,
    explained_memory,
    place_by_layers,
    weights_dtype,
)
from mv3d.model.stability import UNET
from mv3d.model.wan_checkpoints import is_wan_folder, network_folder
from mv3d.model.weights import read_shapes, shapes_in
from mv3d.model_options import ModelOptions


def load_ready_model(
    name: str,
    device: str,
    options: ModelOptions,
    loras: Sequence[LoraUse] = (),
    *,
    fuse: bool = True,
    coarse: CoarseNet | None = None,
) -> AnyModel:
    """Load a model as `mv3d.model.models.load_any_model` does, and place it as ``options`` say.

    Args:
        name: of the model.
        device: of torch, where it computes.
        options: how it is kept.
        loras: are applied before.
        fuse: see `mv3d.model.lora.with_loras`.
        coarse: see `mv3d.model.checkpoints.load_model`.

    Raises:
        Mv3dError: if there is no such model, LoRA or device for what is asked, or too little memory.
    """
    placement = asked_placement(device, options)
    place = resolve_model(name, options.revision)
    half = torch.bfloat16 if is_wan_folder(place) else torch.float16
    dtype = weights_dtype(options.dtype, _count_parameters(place), half)
    if options.compile and placement.device.type == "cpu" and dtype != torch.float32:
        raise Mv3dError(
            "on a CPU weights of 16 bits are multiplied in float32 layer by layer, and compile wants whole networks; "
            "take dtype fp32, or leave compile out",
            argument="dtype",
        )
    with explained_memory(placement, "load the model"):
        model = load_any_model(name, "cpu", dtype, options.revision, coarse)
        if loras:
            model = with_loras(model, loras, fuse=fuse)
        model = place_model(model, placement)
    if options.compile:
        compile_network(model.network, placement)
    return model


def place_model(model: Model, placement: Placement) -> Model:
    """Bring a model that lies in main memory to where it computes; it is not to be used otherwise afterwards.

    Weights of 16 bits are multiplied as float32 on a CPU (`mv3d.model.placement.compute_in_float32`), and those of the
    small model's autoencoder are laid out with channels last, with which it takes three quarters of the time there.
    """
    networks = model.large_networks
    if placement.device.type == "cpu":
        if isinstance(model.vae, RgbaAutoencoder):  # of the others sums are diffusers' own, to the last bit
            _lay_channels_last(model.vae)
        for network in networks:
            stored = {p.dtype for p in network.parameters()} - {torch.float32}
            if stored:
                compute_in_float32(network, stored.pop())
    if placement.offload == "sequential":
        place_by_layers(model.network, placement.device)
    beside = [] if model.coarse is None else [model.coarse]
    for network in beside if placement.offload != "none" else [*networks, *beside]:
        nn.Module.to(network, placement.device)
    return replace(model, placement=placement)


def _lay_channels_last(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def _count_parameters(place: Path) -> int:
    """Of what is sampled, by the shapes in its files; 0 of damaged ones, of which loading says what is wrong."""
    try:
        shapes = read_shapes(place) if place.is_file() else shapes_in(network_folder(place))
    except Mv3dError:
        return 0
    below = UNET if place.is_file() else ""
    return sum(math.prod(shape) for key, shape in shapes.items() if key.startswith(below))

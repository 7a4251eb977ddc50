"""Low-rank adapters of a model's network (Hu et al. 2021): trained beside frozen weights, and any number on one model.

Their files are read and written by `mv3d.model.lora_file`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mv3d.errors import Mv3dError
from mv3d.model.lora_file import (
    LORA_FILE,
    PEFT_FILE,
    LoraFacts,
    LoraLayer,
    LoraWeights,
    find_lora,
    read_lora,
    write_lora,
)
from mv3d.model.lora_names import of_wan
from mv3d.model.models import Model
from mv3d.model.unet import OrbitUNet
from mv3d.model.wan_transformer import OrbitTransformer
from mv3d.model.weights import check_fit

OrbitNetwork = OrbitUNet | OrbitTransformer

LoraTargets = Literal["temporal_attention", "attention", "all"]
"""Which products get an adapter: attention across frames (SVD's camera motion; Wan has none that is across frames
alone), all attention, or all but the ends."""

_ATTENTION = r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
_TARGETS: dict[str, str] = {
    "temporal_attention": rf".*\.temporal_transformer_blocks\.\d+{_ATTENTION}",
    "attention": rf".*{_ATTENTION}",
    "all": rf"(.*{_ATTENTION}|.*\.ff(_in|n)?\.net\.(0\.proj|2)|.*\.proj_(in|out)"
    r"|.*_res_block\.(conv[12]|time_emb_proj))",
}


@dataclass(frozen=True)
class LoraUse:
    """One LoRA file and how strongly it is applied: 0 is not at all, 1 as trained."""

    path: Path
    scale: float = 1.0


def parse_lora(text: str) -> LoraUse:
    """Read ``FILE`` or ``FILE:SCALE``; a folder stands for the file of diffusers or peft in it.

    Raises:
        Mv3dError: if there is no such file, or the scale is no number.
    """
    head, colon, tail = text.rpartition(":")
    name, scale = (head, tail) if colon and not Path(text).exists() else (text, "1")
    try:
        strength = float(scale)
    except ValueError:
        raise Mv3dError(
            f"LoRA {text}: {scale!r} is no number; write FILE:SCALE, e.g. {name}:0.8", argument="lora"
        ) from None
    path = Path(name).expanduser()
    path = find_lora(path)
    if not path.is_file():
        raise Mv3dError(f"LoRA {text}: there is no file {path}", argument="lora")
    return LoraUse(path, strength)


# -------------------------------------------------------------------------------------------------
# Training.


def add_lora(network: OrbitNetwork, rank: int, alpha: float, targets: LoraTargets, seed: int = 0) -> None:
    """Freeze ``network`` and give it an adapter to train; until it is trained the network computes what it did."""
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.add_adapter(_peft_config(rank, alpha, _TARGETS[targets], init="gaussian"), adapter_name="default")
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # it learns in 32 bits, also beside a base of 16


def train_pose_columns(network: OrbitNetwork) -> None:
    """Let the pose columns be trained besides an adapter, and nothing else of the matrix that they are part of."""
    weight = network.pose_matrix
    kept = torch.zeros_like(weight)
    kept[:, network.pose_start :] = 1
    weight.requires_grad_(True)
    weight.register_hook(lambda gradient: gradient * kept.to(gradient.device))


def save_lora(network: OrbitNetwork, path: Path, facts: LoraFacts, *, pose_base: Tensor | None = None) -> None:
    """Write the adapter of `add_lora` to a file.

    Args:
        network: with the adapter.
        path: of the new file.
        facts: are written into its header.
        pose_base: the pose columns before training, if they were trained too; their change is written.
    """
    state = {
        key: value.detach().float().cpu().contiguous()
        for key, value in lora_tensors(network.state_dict(), "default").items()
    }
    layers = {
        name: LoraLayer(down, state[f"{name}.lora_B.weight"], facts.alpha)
        for key, down in state.items()
        if (name := key.removesuffix(".lora_A.weight")) != key
    }
    pose = None
    if pose_base is not None:
        pose = network.pose_matrix[:, network.pose_start :] - pose_base
        pose = pose.detach().float().cpu().contiguous()
    write_lora(LoraWeights(layers, facts, pose), path, "diffusers")


def lora_tensors(state: Mapping[str, Tensor], adapter: str) -> dict[str, Tensor]:
    """The tensors of one adapter in a state dict, without the adapter's name."""
    found = ((key, re.sub(rf"\.(lora_[AB])\.{adapter}\.weight$", r".\1.weight", key)) for key in state)
    return {new: state[key] for key, new in found if new != key}


def targets_pattern(targets: LoraTargets) -> str:
    """The regular expression behind a name of `LoraTargets`."""
    return _TARGETS[targets]


# -------------------------------------------------------------------------------------------------
# Using.


def with_loras(model: Model, uses: Sequence[LoraUse], *, fuse: bool = True) -> Model:
    """Apply LoRAs to a model, in place; their changes add up.

    Args:
        model: its network is changed.
        uses: which files, how strongly.
        fuse: add the changes to the weights, which costs nothing per step; else they stay layers of their own.

    Raises:
        Mv3dError: if a file is damaged or does not fit the model (keys are listed); the model is then not to be used.
    """
    scales: dict[str, float] = {}
    notes, sampling = [], {}
    for k, use in enumerate(uses):
        lora = read_lora(use.path)
        notes.append(f"{_name_of(use.path)}:{use.scale:g}")
        if not use.scale:  # adding nothing moves weights in memory, and products then round otherwise
            continue
        _attach(model.network, f"lora_{k}", use, lora)
        scales[f"lora_{k}"] = use.scale
        # Poses were learnt on orbits.
        sampling |= ({} if lora.pose is None else {"turns": True}) | (lora.facts.sampling if lora.facts else {})
    if scales:
        model.network.set_adapters(list(scales), list(scales.values()))
        if fuse:
            model.network.fuse_lora(adapter_names=list(scales))
            model.network.unload_lora()
    name = " + ".join([model.facts.name, *notes])
    return replace(model, facts=replace(model.facts, name=name, **sampling))


def _name_of(path: Path) -> str:
    return path.parent.name if path.name in (LORA_FILE, PEFT_FILE) else path.stem


@torch.no_grad()
def _attach(network: OrbitNetwork, adapter: str, use: LoraUse, lora: LoraWeights) -> None:
    made_for = f", made for {lora.facts.base}," if lora.facts else ""
    if of_wan(lora.layers) != isinstance(network, OrbitTransformer):
        own, other = ("Wan's transformer", "SVD's UNet") if of_wan(lora.layers) else ("SVD's UNet", "Wan's transformer")
        raise Mv3dError(f"{use.path}{made_for} is a LoRA of {own}, and this model has {other}", argument="lora")
    # Of a file that others made, which may change a part of the layers that it could, all that it names are meant.
    targets = lora.facts.targets if lora.facts else sorted(lora.layers)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are what is wanted
            config = _peft_config(*lora.usual(), targets, init=False, **lora.patterns())
            network.add_adapter(config, adapter_name=adapter)
    except (ValueError, re.error) as error:  # no module has such a name
        named = targets if isinstance(targets, str) else f"{targets[0]}, ..."
        raise Mv3dError(f"{use.path} changes no part of this model ({named})") from error
    own = lora_tensors(network.state_dict(), adapter)
    given: dict[str, Tensor] = {}
    for name, layer in lora.layers.items():
        for half, value in ((f"{name}.lora_A.weight", layer.down), (f"{name}.lora_B.weight", layer.up)):
            # What kohya's scripts have as a convolution of one pixel is a product here.
            fits = half in own and own[half].flatten(1).shape == value.flatten(1).shape
            given[half] = value.view(own[half].shape) if fits else value
    check_fit(own, given, f"{use.path}{made_for}")
    for key, value in own.items():
        value.copy_(given[key])
    if lora.pose is not None:
        first, weight = network.pose_start, network.pose_matrix
        if weight[:, first:].shape != lora.pose.shape:
            shapes = f"{tuple(lora.pose.shape)} instead of {tuple(weight[:, first:].shape)}"
            raise Mv3dError(f"{use.path}{made_for} does not fit this model: its pose part is {shapes}")
        weight[:, first:] += use.scale * lora.pose.to(weight)


def _peft_config(rank: int, alpha: float, targets: str | list[str], init: Any, **patterns: Any) -> Any:
    from peft import LoraConfig  # a second of imports that most uses do not need

    scaling: Any = alpha  # peft's annotation says int, its arithmetic takes any number
    return LoraConfig(r=rank, lora_alpha=scaling, target_modules=targets, init_lora_weights=init, **patterns)

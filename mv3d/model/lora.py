"""Low-rank adapters of the video UNet: one safetensors file that knows its base, and any number of them on one model.

The file is diffusers' ``pytorch_lora_weights.safetensors``: ``unet.<module>.lora_A.weight`` and ``lora_B.weight``
(Hu et al. 2021: W + scale * alpha / rank * B A), peft's config in its header. Beside them stands, under ``pose.``, what
was learnt in the pose columns of a base that had none of its own (stock SVD).
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.model.checkpoints import ModelFacts, OrbitModel
from mv3d.model.unet import OrbitUNet
from mv3d.model.weights import check_fit, finite

LORA_FILE = "pytorch_lora_weights.safetensors"

LoraTargets = Literal["temporal_attention", "attention", "all"]
"""Which products get an adapter: attention across frames (SVD's camera motion), all attention, or all but the ends."""

_ATTENTION = r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
_TARGETS: dict[str, str] = {
    "temporal_attention": rf".*\.temporal_transformer_blocks\.\d+{_ATTENTION}",
    "attention": rf".*{_ATTENTION}",
    "all": rf"(.*{_ATTENTION}|.*\.ff(_in)?\.net\.(0\.proj|2)|.*\.proj_(in|out)|.*_res_block\.(conv[12]|time_emb_proj))",
}
_FACTS_KEY = "mv3d"
_POSE_KEY = "pose.add_embedding.linear_1.weight"


@dataclass(frozen=True)
class LoraFacts:
    """What a LoRA file says of itself."""

    base: str
    """Name of the model it was trained on."""
    licence: str
    rank: int
    alpha: float
    targets: str
    """Which modules it changes, as a regular expression for their whole names."""
    pose: bool = False
    """Whether it brings pose columns for a base without them."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """`ModelFacts` of how the adapted model is sampled, where that is not as its base: one distilled to few steps."""


@dataclass(frozen=True)
class LoraUse:
    """One LoRA file and how strongly it is applied: 0 is not at all, 1 as trained."""

    path: Path
    scale: float = 1.0


def parse_lora(text: str) -> LoraUse:
    """Read ``FILE`` or ``FILE:SCALE``; a folder stands for the `LORA_FILE` in it.

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
    path = path / LORA_FILE if path.is_dir() else path
    if not path.is_file():
        raise Mv3dError(f"LoRA {text}: there is no file {path}", argument="lora")
    return LoraUse(path, strength)


# -------------------------------------------------------------------------------------------------
# Training.


def add_lora(unet: OrbitUNet, rank: int, alpha: float, targets: LoraTargets, seed: int = 0) -> None:
    """Freeze ``unet`` and give it an adapter to train; until it is trained the network computes what it did."""
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(_peft_config(rank, alpha, _TARGETS[targets], init="gaussian"), adapter_name="default")


def train_pose_columns(unet: OrbitUNet) -> None:
    """Let the pose columns be trained besides an adapter, and nothing else of the matrix that they are part of."""
    weight = unet.add_embedding.linear_1.weight
    kept = torch.zeros_like(weight)
    kept[:, unet.config["projection_class_embeddings_input_dim"] :] = 1
    weight.requires_grad_(True)
    weight.register_hook(lambda gradient: gradient * kept.to(gradient.device))


def save_lora(unet: OrbitUNet, path: Path, facts: LoraFacts, *, pose_base: Tensor | None = None) -> None:
    """Write the adapter of `add_lora` to a file.

    Args:
        unet: with the adapter.
        path: of the new file.
        facts: are written into its header.
        pose_base: the pose columns before training, if they were trained too; their change is written.
    """
    tensors = {f"unet.{key}": value for key, value in lora_tensors(unet.state_dict(), "default").items()}
    if pose_base is not None:
        first = unet.config["projection_class_embeddings_input_dim"]
        tensors[_POSE_KEY] = unet.add_embedding.linear_1.weight[:, first:] - pose_base
    tensors = {key: value.detach().float().cpu().contiguous() for key, value in tensors.items()}
    config = {"r": facts.rank, "lora_alpha": facts.alpha, "target_modules": facts.targets, "peft_type": "LORA"}
    metadata = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in config.items()}),
        _FACTS_KEY: json.dumps(asdict(facts)),
    }
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(0o644)


def lora_tensors(state: Mapping[str, Tensor], adapter: str) -> dict[str, Tensor]:
    """The tensors of one adapter in a state dict, without the adapter's name."""
    found = ((key, re.sub(rf"\.(lora_[AB])\.{adapter}\.weight$", r".\1.weight", key)) for key in state)
    return {new: state[key] for key, new in found if new != key}


def targets_pattern(targets: LoraTargets) -> str:
    """The regular expression behind a name of `LoraTargets`."""
    return _TARGETS[targets]


# -------------------------------------------------------------------------------------------------
# Using.


def read_lora(path: Path) -> tuple[LoraFacts, dict[str, Tensor]]:
    """Read a LoRA file of ours: its facts, and its tensors by the names in the file.

    Raises:
        Mv3dError: if it is damaged, or does not say what it was made for.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: finite(file.get_tensor(key), key, str(path)) for key in file.keys()}  # noqa: SIM118
        facts = LoraFacts(**json.loads(metadata[_FACTS_KEY]))
        unknown = set(facts.sampling) - {f.name for f in fields(ModelFacts)}
        if unknown:
            raise ValueError(f"unknown facts of sampling: {', '.join(sorted(unknown))}")
        ranks = {len(value) for key, value in tensors.items() if key.endswith("lora_A.weight")}
        if facts.rank not in ranks or not math.isfinite(facts.alpha):  # before an adapter of that rank is made
            raise ValueError(f"rank {facts.rank} and alpha {facts.alpha}, but tensors of rank {sorted(ranks)}")
    except Mv3dError:
        raise
    except (SafetensorError, OSError) as error:
        raise Mv3dError(f"{path} is no readable safetensors file: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise Mv3dError(
            f"{path} is no LoRA of mv3d: its header has no base, rank and alpha, or more than that ({error})"
        ) from error
    return facts, tensors


def with_loras(model: OrbitModel, uses: Sequence[LoraUse], *, fuse: bool = True) -> OrbitModel:
    """Apply LoRAs to a model, in place; their changes add up.

    Args:
        model: its UNet is changed.
        uses: which files, how strongly.
        fuse: add the changes to the weights, which costs nothing per step; else they stay layers of their own.

    Raises:
        Mv3dError: if a file is damaged or does not fit the model (keys are listed); the model is then not to be used.
    """
    scales: dict[str, float] = {}
    notes, sampling = [], {}
    for k, use in enumerate(uses):
        facts, tensors = read_lora(use.path)
        notes.append(f"{use.path.parent.name if use.path.name == LORA_FILE else use.path.stem}:{use.scale:g}")
        if not use.scale:  # adding nothing moves weights in memory, and products then round otherwise
            continue
        _attach(model.unet, f"lora_{k}", use, facts, tensors)
        scales[f"lora_{k}"] = use.scale
        # Poses were learnt on orbits.
        sampling |= ({"turns": True} if facts.pose else {}) | facts.sampling
    if scales:
        model.unet.set_adapters(list(scales), list(scales.values()))
        if fuse:
            model.unet.fuse_lora(adapter_names=list(scales))
            model.unet.unload_lora()
    name = " + ".join([model.facts.name, *notes])
    return replace(model, facts=replace(model.facts, name=name, **sampling))


@torch.no_grad()
def _attach(unet: OrbitUNet, adapter: str, use: LoraUse, facts: LoraFacts, tensors: dict[str, Tensor]) -> None:
    given = {key.removeprefix("unet."): value for key, value in tensors.items() if key != _POSE_KEY}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are what is wanted
            unet.add_adapter(_peft_config(facts.rank, facts.alpha, facts.targets, init=False), adapter_name=adapter)
    except ValueError as error:  # no module has such a name
        raise Mv3dError(f"{use.path} changes no part of this model ({facts.targets})") from error
    own = lora_tensors(unet.state_dict(), adapter)
    check_fit(own, given, f"{use.path}, made for {facts.base},")
    for key, value in own.items():
        value.copy_(given[key])
    if _POSE_KEY in tensors:
        first = unet.config["projection_class_embeddings_input_dim"]
        weight = unet.add_embedding.linear_1.weight
        if weight[:, first:].shape != tensors[_POSE_KEY].shape:
            shapes = f"{tuple(tensors[_POSE_KEY].shape)} instead of {tuple(weight[:, first:].shape)}"
            raise Mv3dError(f"{use.path}, made for {facts.base}, does not fit this model: its pose part is {shapes}")
        weight[:, first:] += use.scale * tensors[_POSE_KEY].to(weight)


def _peft_config(rank: int, alpha: float, targets: str, init: Any) -> Any:
    from peft import LoraConfig  # a second of imports that most uses do not need

    scaling: Any = alpha  # peft's annotation says int, its arithmetic takes any number
    return LoraConfig(r=rank, lora_alpha=scaling, target_modules=targets, init_lora_weights=init)

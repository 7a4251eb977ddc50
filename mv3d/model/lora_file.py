"""LoRA files of three styles, read into one thing and written from it: layers, each with its own rank and alpha.

A layer adds alpha / rank * up @ down to its weight (Hu et al. 2021). Tensors keep their type, and a header what others
wrote into it; so a file that is written again in its own style has equal bytes.

* **diffusers**: ``pytorch_lora_weights.safetensors``; peft's config is in its header.
* **peft**: a folder of ``adapter_model.safetensors`` and ``adapter_config.json``, as ``PeftModel`` saves it.
* **kohya**: one file with alpha as a tensor beside each layer, by Stability AI's names, for ComfyUI.

What mv3d knows of a LoRA beyond that stands in the header under ``mv3d``, and what was learnt in the pose columns of a
base that had none of its own (stock SVD, Wan) under ``pose.``, in every style; others ignore both.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mv3d.errors import Mv3dError
from mv3d.files import whole_file, whole_folder
from mv3d.model.facts import ModelFacts
from mv3d.model.lora_names import LoraStyle, make_key, of_wan, part_of_pipeline, split_key
from mv3d.model.weights import finite, load_json, shortened

LORA_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"

_FACTS_KEY, _CONFIG_KEY = "mv3d", "lora_adapter_metadata"
_POSE_KEYS = ("pose.add_embedding.linear_1.weight", "pose.lora.patch_embedding.weight")
"""Of SVD, and of Wan: diffusers refuses a LoRA of Wan with a tensor that has no lora in its name, and ignores this."""
_WANS_OWN = "diffusion_model.blocks."
_UNREAD = {"use_dora": "DoRA", "use_rslora": "rank-stabilised LoRA", "lora_bias": "biases"}


@dataclass(frozen=True)
class LoraFacts:
    """What a LoRA file of mv3d says of itself."""

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


@dataclass(frozen=True, eq=False)
class LoraLayer:
    """The change of one layer."""

    down: Tensor
    """(rank, in), of convolutions (rank, in, ...)."""
    up: Tensor
    """(out, rank), of convolutions (out, rank, 1, ...)."""
    alpha: float

    @property
    def rank(self) -> int:
        """The width between the two."""
        return len(self.down)


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """All that a LoRA file holds."""

    layers: dict[str, LoraLayer]
    """By the names of the modules of diffusers' network."""
    facts: LoraFacts | None = None
    """None of a file that others made."""
    pose: Tensor | None = None
    header: dict[str, str] = field(default_factory=dict)
    """What else stands there."""

    def usual(self) -> tuple[int, float]:
        """The commonest rank and alpha."""
        found = Counter((layer.rank, layer.alpha) for layer in self.layers.values())
        return max(found, key=lambda pair: (found[pair], pair))

    def patterns(self) -> dict[str, dict[str, Any]]:
        """Ranks and alphas that are not the usual ones, as peft wants them: by a pattern of the module's name."""
        rank, alpha = self.usual()
        layers = sorted((f"^{re.escape(name)}", layer) for name, layer in self.layers.items())
        return {
            "rank_pattern": {name: layer.rank for name, layer in layers if layer.rank != rank},
            "alpha_pattern": {name: layer.alpha for name, layer in layers if layer.alpha != alpha},
        }


# -------------------------------------------------------------------------------------------------
# Reading.


def find_lora(path: Path) -> Path:
    """The file of a LoRA that is named by it, or by a folder of diffusers or peft."""
    if not path.is_dir():
        return path
    return next((path / name for name in (LORA_FILE, PEFT_FILE) if (path / name).is_file()), path / LORA_FILE)


def read_lora(path: Path) -> LoraWeights:
    """Read a LoRA file of any of the styles.

    Raises:
        Mv3dError: if it is damaged, holds anything but a LoRA of SVD or Wan, or is of a kind that is not read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {key: finite(file.get_tensor(key), key, str(path)) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise Mv3dError(f"{path} is no readable safetensors file: {error}") from error
    if any(key.startswith(_WANS_OWN) for key in tensors):
        tensors = _by_names_of_diffusers(tensors, path)
    pose = next((tensors.pop(key) for key in _POSE_KEYS if key in tensors), None)
    parts: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, value in tensors.items():
        if (found := split_key(key)) is None:
            unknown.append(key)
        else:
            parts.setdefault(found[0], {})[found[1]] = value
    if unknown or not parts:
        what = f"holds {len(unknown)} tensors that are none: {shortened(unknown)}" if unknown else "is empty"
        raise Mv3dError(f"{path} is no LoRA of SVD's UNet or Wan in the style of diffusers, peft or kohya: it {what}")
    facts = _read_facts(header.pop(_FACTS_KEY, None), path)
    config = _read_config(header.pop(_CONFIG_KEY, None), path)
    alphas = _Alphas(config, facts, path)
    layers = {name: _make_layer(name, found, alphas, path) for name, found in parts.items()}
    ranks = sorted({layer.rank for layer in layers.values()})
    if facts is not None and (facts.rank not in ranks or not math.isfinite(facts.alpha)):
        raise Mv3dError(
            f"{path} is damaged: its header says rank {facts.rank} and alpha {facts.alpha}, but tensors of rank {ranks}"
        )
    lora = LoraWeights(layers, facts, pose)
    derived = _kohya_header(lora) | {"format": "pt"}
    return replace(lora, header={key: value for key, value in header.items() if derived.get(key) != value})


def _by_names_of_diffusers(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Those of a LoRA by Wan's own names, as ComfyUI and most trainers write them; alphas are multiplied in."""
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin  # imports much

    try:
        converted: Any = WanLoraLoaderMixin.lora_state_dict(tensors)
    except Exception as error:  # what its many branches stumble over is of all kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Mv3dError(f"{path} is no LoRA of Wan that diffusers can convert: {reason}") from error
    return converted


def _read_facts(text: str | None, path: Path) -> LoraFacts | None:
    if text is None:
        return None
    try:
        facts = LoraFacts(**json.loads(text))
        unknown = set(facts.sampling) - {known.name for known in fields(ModelFacts)}
        if unknown:
            raise ValueError(f"unknown facts of sampling: {', '.join(sorted(unknown))}")
    except (TypeError, ValueError, RecursionError) as error:
        raise Mv3dError(f"{path} is damaged: what its header says of it is not what mv3d writes ({error})") from error
    return facts


def _read_config(text: str | None, path: Path) -> dict[str, Any]:
    """Peft's config: in the header as diffusers has it, or in a file beside."""
    beside = path.parent / PEFT_CONFIG
    try:
        if text is not None:
            given = dict(json.loads(text))
            config = {re.sub(r"^(unet|transformer)\.", "", str(key)): value for key, value in given.items()}
        else:
            config = load_json(beside) if path.name == PEFT_FILE and beside.is_file() else {}
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, Mv3dError):
            raise
        raise Mv3dError(f"{path} is damaged: its header holds no config of peft ({error})") from error
    for key, kind in _UNREAD.items():
        if config.get(key):
            raise Mv3dError(f"{path} is a LoRA with {kind} ({key}), which mv3d does not apply; train it without")
    return config


class _Alphas:
    """The alpha of each layer, where none lies beside it."""

    def __init__(self, config: Mapping[str, Any], facts: LoraFacts | None, path: Path) -> None:
        self._usual: Any = config.get("lora_alpha", None if facts is None else facts.alpha)
        try:
            patterns = dict(config.get("alpha_pattern") or {})
            self._patterns = [(re.compile(rf"(.*\.)?({key})$"), value) for key, value in patterns.items()]
        except (TypeError, ValueError, re.error) as error:
            raise Mv3dError(f"{path} is damaged: its alpha_pattern is none of peft's ({error})") from error

    def of(self, name: str, rank: int) -> Any:
        """By the first pattern that fits, or the usual one, or as large as the rank."""
        usual = rank if self._usual is None else self._usual
        return next((value for pattern, value in self._patterns if pattern.match(name)), usual)


def _make_layer(name: str, parts: Mapping[str, Tensor], alphas: _Alphas, path: Path) -> LoraLayer:
    down, up = parts.get("down"), parts.get("up")
    if down is None or up is None or down.ndim < 2 or up.ndim < 2 or up.shape[1] != len(down) or not len(down):
        shapes = {part: tuple(value.shape) for part, value in parts.items()}
        raise Mv3dError(f"{path} is damaged: for {name} it holds {shapes}, which are no two halves of one rank")
    try:
        alpha = float(parts["alpha"] if "alpha" in parts else alphas.of(name, len(down)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise Mv3dError(f"{path} is damaged: the alpha of {name} is no number ({error})") from error
    if not math.isfinite(alpha):
        raise Mv3dError(f"{path} is damaged: the alpha of {name} is {alpha}")
    return LoraLayer(down, up, alpha)


# -------------------------------------------------------------------------------------------------
# Writing.


def write_lora(lora: LoraWeights, path: Path, style: LoraStyle, *, overwrite: bool = True) -> None:
    """Write a LoRA: a file, or in peft's style a folder. Equal LoRAs give equal bytes.

    Raises:
        Mv3dError: if ``path`` exists and is not to be replaced, or a layer has no name in this style.
    """
    tensors = {} if lora.pose is None else {_POSE_KEYS[of_wan(lora.layers)]: lora.pose}
    for name, layer in lora.layers.items():
        tensors |= {make_key(name, "down", style): layer.down, make_key(name, "up", style): layer.up}
        if style == "kohya":
            tensors[make_key(name, "alpha", style)] = _exact(layer.alpha, layer.down.dtype)
    header = (_kohya_header(lora) if style == "kohya" else {"format": "pt"}) | lora.header
    config = _peft_config(lora)
    if lora.facts is not None:
        header[_FACTS_KEY] = json.dumps(asdict(lora.facts))
    if style == "diffusers":
        part = part_of_pipeline(lora.layers)
        header[_CONFIG_KEY] = json.dumps({f"{part}.{key}": value for key, value in config.items()})
    data = _stable(save({key: value.contiguous() for key, value in tensors.items()}, metadata=header))
    if style != "peft":
        with whole_file(path, overwrite=overwrite) as partial:
            partial.write_bytes(data)
        return
    with whole_folder(path, overwrite=overwrite) as partial:
        (partial / PEFT_FILE).write_bytes(data)
        (partial / PEFT_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _exact(number: float, dtype: torch.dtype) -> Tensor:
    """A number as the type of its neighbours, as kohya's scripts have it, if nothing of it is lost."""
    value = torch.tensor(number, dtype=dtype)
    return value if float(value) == number else torch.tensor(number, dtype=torch.float32)


def _peft_config(lora: LoraWeights) -> dict[str, Any]:
    rank, alpha = lora.usual()
    targets = sorted(lora.layers) if lora.facts is None else lora.facts.targets
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": targets}
    return config | {key: value for key, value in lora.patterns().items() if value}


def _kohya_header(lora: LoraWeights) -> dict[str, str]:
    rank, alpha = lora.usual()
    return {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": f"{alpha:g}"}


def _stable(data: bytes) -> bytes:
    """A safetensors file with its header in order, which the library writes in another one each time."""
    size = int.from_bytes(data[:8], "little")
    content = json.loads(data[8 : 8 + size])
    content["__metadata__"] = dict(sorted(content["__metadata__"].items()))
    content = {"__metadata__": content.pop("__metadata__"), **content}
    header = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]

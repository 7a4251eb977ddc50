"""The LoRAs that the page offers: which files those are, and which models take them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from mv3d.errors import Mv3dError
from mv3d.model.hub import resolve_model
from mv3d.model.lora import parse_lora
from mv3d.model.lora_file import LORA_FILE, PEFT_FILE, find_lora, read_lora
from mv3d.model.wan_checkpoints import network_folder
from mv3d.model.weights import shapes_in


def find_loras(given: Sequence[str]) -> tuple[str, ...]:
    """The LoRAs that names stand for: a file, a folder of diffusers or peft, or a folder of several such.

    Raises:
        Mv3dError: if there is none.
    """
    return tuple(found for text in given for found in _below(text))


def unfit_pairs(models: Sequence[str], loras: Sequence[str]) -> frozenset[tuple[str, str]]:
    """Models and LoRAs that do not go together, by the sizes of what a LoRA changes.

    Raises:
        Mv3dError: if a LoRA is damaged, or goes with none of the models.
    """
    shapes = {model: _network_shapes(model) for model in models}
    pairs = {(model, lora) for lora in loras for model, known in shapes.items() if not _fits(lora, known)}
    for lora in loras:
        if all((model, lora) in pairs for model in models):
            raise Mv3dError(f"LoRA {lora} fits none of {', '.join(models)}; offer the model it was made for")
    return frozenset(pairs)


def _below(text: str) -> list[str]:
    place = Path(text).expanduser()
    if not place.is_dir() or find_lora(place).is_file():
        parse_lora(text)
        return [text]
    names = (LORA_FILE, PEFT_FILE)
    inside = [p for p in sorted(place.iterdir()) if p.suffix == ".safetensors" or any((p / n).is_file() for n in names)]
    if not inside:
        raise Mv3dError(f"there is no LoRA in {text}; name a file, or a folder of them", argument="lora")
    return [str(path) for path in inside]


def _network_shapes(model: str) -> dict[str, tuple[int, ...]] | None:
    """Of the weights in a model folder; None of a single file of others, whose names are not these: it is of SVD."""
    place = resolve_model(model)
    return None if place.is_file() else shapes_in(network_folder(place))


def _fits(lora: str, shapes: dict[str, tuple[int, ...]] | None) -> bool:
    if shapes is None:
        return True
    for name, layer in read_lora(parse_lora(lora).path).layers.items():
        shape = shapes.get(f"{name}.weight", (0,))
        if (shape[0], math.prod(shape[1:])) != (len(layer.up), layer.down[0].numel()):
            return False
    return True

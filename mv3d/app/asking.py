"""What visitors ask for becomes the options of ``mv3d orbit``, as far as it is offered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from mv3d.app.flow import Workshop
from mv3d.errors import Mv3dError
from mv3d.options import Matte, OrbitOptions, PromptOptions
from mv3d.prompt import Prompt


def options_from(workshop: Workshop, asked: Mapping[str, Any], lora_scales: Sequence[float] = ()) -> OrbitOptions:
    """Options of ``mv3d orbit`` by their names, of what a visitor may choose; None and what is absent is the default.

    ``lora_scales`` belong to the workshop's LoRAs, in their order; those that the model does not take count nothing.

    Raises:
        Mv3dError: if a value is no number, or names what is not offered here.
    """
    given = {name: value for name, value in asked.items() if value is not None and value != ""}
    for name in ("seed", "num_views", "steps", "faces", "texture_size"):
        if name in given:
            given[name] = _whole(name, given[name])
    for name in ("elevation", "guidance"):
        if name in given and (name, given[name]) != ("elevation", "auto"):
            given[name] = _number(name, given[name])
    model = given.pop("model", workshop.models[0])
    if model not in workshop.models:
        raise Mv3dError(f"model {str(model)[:60]} is not offered here; choose one of {', '.join(workshop.models)}")
    if given.get("matte", "auto") not in get_args(Matte):
        raise Mv3dError(f"matte {str(given['matte'])[:60]}: choose one of {', '.join(get_args(Matte))}")
    used = tuple(
        f"{lora}:{scale:g}"
        for lora, scale in zip(workshop.loras, lora_scales, strict=False)
        if scale and (model, lora) not in workshop.unfit
    )
    given.setdefault("mesh", True)
    return OrbitOptions(**given, model=model, lora=used, device=workshop.device)


def prompt_from(workshop: Workshop, words: Any, options: OrbitOptions) -> Prompt:
    """What is to be drawn of a visitor's words; raises `Mv3dError` as `Prompt`, or if that is not offered."""
    if workshop.text_model is None:
        raise Mv3dError("pictures of words are not offered here; drop a picture")
    text = words if isinstance(words, str) else ""
    return Prompt(text, PromptOptions(workshop.text_model), options.seed, options.matte != "none")


def uploaded(path: Any, folder: Path) -> Path:
    """A file that was uploaded into ``folder`` and nothing else of this machine.

    Raises:
        Mv3dError: if it is somewhere else, or did not arrive.
    """
    place = Path(path).resolve() if isinstance(path, str) and "\0" not in path else None
    if place is None or not place.is_relative_to(folder.resolve()) or not place.is_file():
        raise Mv3dError("the file did not arrive; try again")
    return place


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if number != int(number):
        raise Mv3dError(f"{name} {str(value)[:60]} is no whole number; give one", argument=name)
    return int(number)


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
        if not isinstance(value, bool) and math.isfinite(number):
            return number
    except (TypeError, ValueError):
        pass
    raise Mv3dError(f"{name} {str(value)[:60]} is no number; give one", argument=name)

"""What a model was made for, how it is sampled, and under which licence its weights are, as its folder tells."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from mv3d.errors import Mv3dError
from mv3d.model.weights import load_json

GuidanceKind = Literal["constant", "linear", "triangle"]

FACTS_KEY = "mv3d"
"""In ``model_index.json``."""

_LARGEST_PX, _MOST_VIEWS, _MOST_STEPS = 4096, 1000, 1000
_NOISIEST = 1e6  # sigma; SVD's is 700


@dataclass(frozen=True)
class ModelFacts:
    """What a model was made for, and how it is sampled unless the user says otherwise. The defaults are SVD's."""

    name: str
    licence: str
    resolution_px: int = 576
    """Of the frames that are encoded; an autoencoder that enlarges gives larger ones, see `OrbitModel.output_px`."""
    num_views: int = 21
    added_time_ids: tuple[float, ...] = (6.0, 127.0, 0.02)
    """Frames per second less one, motion, and, always last, the noise added to the input picture."""
    sigma_min: float = 0.002
    sigma_max: float = 700.0
    num_steps: int = 25
    guidance: GuidanceKind = "linear"
    guidance_low: float = 1.0
    guidance_high: float = 3.0
    teacher_steps: int | None = None
    """Of a consistency model: the sampling steps that it was distilled from; its few are taken from their levels."""
    turns: bool = True
    """It makes orbits, and not clips of a camera that moves in ways that nobody told it, as stock SVD does."""


@dataclass(frozen=True)
class SampleSettings:
    """How a clip is sampled; None means the model's own default."""

    num_views: int
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    decode_chunk: int | None = None
    """Frames on the device while decoding, see `mv3d.model.decoding.decode_clip`."""


def licence_files(place: Path) -> list[Path]:
    """The texts of the licence that lie in a model folder, or beside a model file."""
    folder = place.parent if place.is_file() else place
    return sorted(path for path in folder.glob("LICENSE*") if path.is_file())


def licence_of(folder: Path, name: str, usual: str | None = None) -> str:
    """What a model card's head says of the licence; the name of the file that says it where there is no card.

    ``usual`` is that of models of this kind, where neither is there; Stability AI has one for each of its own.
    """
    card = folder / "README.md"
    if card.is_file():
        head = card.read_text(errors="replace").split("---")[1:2]
        card_entries = dict(re.findall(r"^(license\w*):\s*(\S.*?)\s*$", head[0], re.MULTILINE)) if head else {}
        licence = card_entries.get("license_name") or card_entries.get("license")
        if licence:
            return f"{licence}, {card_entries['license_link']}" if "license_link" in card_entries else licence
    files = licence_files(folder)
    if files:
        return f"see {files[0].name} of {name}"
    return usual or f"Stability AI's for {name}: see where its weights came from"


def load_facts(index: dict[str, Any], folder: Path, name: str) -> ModelFacts:
    """The facts in a model folder's ``model_index.json``, or SVD's with the folder's own noise levels and licence.

    Raises:
        Mv3dError: if one is missing, unknown, of another type or outside its limits.
    """
    known, path = index.get(FACTS_KEY), folder / "model_index.json"
    if known is None:
        path = folder / "scheduler" / "scheduler_config.json"
        scheduler = load_json(path)
        levels = {key: scheduler.get(key) or getattr(ModelFacts, key) for key in ("sigma_min", "sigma_max")}
        known = {"name": name, "licence": licence_of(folder, name), **levels, "turns": False}
    if not isinstance(known, dict):
        raise Mv3dError(f"{path}: {FACTS_KEY} must be an object of facts, not {type(known).__name__}")
    unknown = set(known) - {f.name for f in fields(ModelFacts)}
    if unknown or not {"name", "licence"} <= set(known):
        raise Mv3dError(f"{path} has no name or licence, or unknown facts: {sorted(unknown)}")
    ids = known.get("added_time_ids", ModelFacts.added_time_ids)
    values: dict[str, Any] = known | {"added_time_ids": tuple(ids) if isinstance(ids, (list, tuple)) else (ids,)}
    facts = ModelFacts(**values)
    problem = _problem_of(facts)
    if problem:
        raise Mv3dError(f"{path}: {problem}")
    return facts


def _problem_of(facts: ModelFacts) -> str | None:
    """The first fact that cannot be, with its limits."""
    whole = {"resolution_px": (8, _LARGEST_PX), "num_views": (1, _MOST_VIEWS), "num_steps": (1, _MOST_STEPS)}
    if facts.teacher_steps is not None:
        whole["teacher_steps"] = (1, _MOST_STEPS)
    for key, (low, high) in whole.items():
        value = getattr(facts, key)
        if not _is_number(value) or value != int(value) or not low <= value <= high:
            return f"{key} {value!r} is no whole number from {low} to {high}"
    numbers = [(f"added_time_ids {facts.added_time_ids!r}", value) for value in facts.added_time_ids]
    numbers += [(f"{key} {getattr(facts, key)!r}", getattr(facts, key)) for key in ("guidance_low", "guidance_high")]
    for what, value in numbers:
        if not _is_number(value):
            return f"{what} is no finite number"
    low, high = facts.sigma_min, facts.sigma_max
    if not (_is_number(low) and _is_number(high) and 0 < low < high <= _NOISIEST):
        return f"noise from sigma_min {low!r} to sigma_max {high!r} is no range within 0 to {_NOISIEST:g}"
    if facts.guidance not in get_args(GuidanceKind):
        return f"guidance {facts.guidance!r} is none of {', '.join(get_args(GuidanceKind))}"
    if not isinstance(facts.turns, bool) or not isinstance(facts.name, str) or not isinstance(facts.licence, str):
        return "name and licence are texts, and turns is true or false"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

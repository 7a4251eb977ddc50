"""The model card of what a run made, filled from the run: what the hub shows beside the weights."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.config import RunConfig
from mv3d.model.facts import ModelFacts
from mv3d.model.publishing import PLACE

_HUB_LICENCES = frozenset(
    {"apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-3.0"}
    | {"cc-by-sa-3.0", "openrail", "openrail++", "creativeml-openrail-m", "unknown"}
)
"""Licences by the names that the hub knows; others are called other, and their own name stands beside."""

_STOCK_USE = """
It has no inputs that SVD has not, so diffusers loads it without mv3d:

```python
from diffusers import StableVideoDiffusionPipeline

pipeline = StableVideoDiffusionPipeline.from_pretrained("OWNER/NAME")
```
"""
_LORA_USE = """
`mv3d lora convert pytorch_lora_weights.safetensors -o lora_kohya.safetensors --to kohya` writes it for ComfyUI, `--to
peft` for `PeftModel.from_pretrained`.
"""
_WAN_LORA_USE = """
`load_lora_weights` of diffusers' `WanImageToVideoPipeline` reads it too, without its cameras.
"""


def model_card(
    config: RunConfig,
    facts: ModelFacts,
    attributions: Mapping[str, str],
    *,
    steps: int,
    scores: Mapping[str, float],
    licence_file: str | None,
    is_stock: bool,
    of_wan: bool,
) -> str:
    """Markdown with the hub's facts at its head.

    Args:
        config: of the run.
        facts: of the model that was made.
        attributions: author and licence of each object that it was trained on, by the object's name.
        steps: that the diffusion stage has been trained.
        scores: of its last validation.
        licence_file: of the base, that lies beside.
        is_stock: whether diffusers' own pipeline for SVD loads it.
        of_wan: whether it is Wan's kind, and not SVD's.
    """
    lora = config.diffusion.lora is not None
    use = f"--model {_base_name(config)} --lora FOLDER" if lora else f"--model {PLACE}"
    parts = [
        _head(config, facts, licence_file),
        f"# {config.model_name}",
        _what(config, facts),
        f"## Use\n\n```bash\nmv3d orbit photo.jpg {use}\n```",
        (_WAN_LORA_USE if of_wan else _LORA_USE).strip() if lora else _STOCK_USE.strip() if is_stock else "",
        "## Training\n\n" + _table(_training(config, steps)),
        _scores(scores),
        _data(attributions),
        f"## Licence\n\n{facts.licence}" + (f" ([{licence_file}]({licence_file}))" if licence_file else ""),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def last_scores(run: Path) -> dict[str, float]:
    """What the last validation in a stage's log found; empty if there was none, or the log cannot be read."""
    try:
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    for line in reversed(lines):
        try:
            found = {key: value for key, value in json.loads(line).items() if str(key).startswith("val_")}
        except (ValueError, AttributeError):  # the last line of a run that was killed may be cut
            continue
        if found:
            return {key.removeprefix("val_"): value for key, value in found.items()}
    return {}


def _head(config: RunConfig, facts: ModelFacts, licence_file: str | None) -> str:
    name = facts.licence.split(",")[0].strip()
    lines = {"license": name.lower()}
    if name.lower() not in _HUB_LICENCES:
        lines = {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")}
        lines |= {"license_link": licence_file} if licence_file else {}
    tags = ["mv3d", "multi-view", "orbit", "video-diffusion", *(["lora"] if config.diffusion.lora else [])]
    lines |= {"library_name": "diffusers", "pipeline_tag": "image-to-video", "tags": f"[{', '.join(tags)}]"}
    if config.base is not None and _base_name(config) == config.base and "/" in config.base:
        relation = "adapter" if config.diffusion.lora else "finetune"
        lines |= {"base_model": config.base, "base_model_relation": relation}
    return "\n".join(["---", *(f"{key}: {value}" for key, value in lines.items()), "---"])


def _base_name(config: RunConfig) -> str:
    """A base on the hub by its name there; one that lies here by its own, since nobody else has the folder."""
    if config.base is None:
        return "random weights"
    is_hub_name = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", config.base) and not Path(config.base).exists()
    return config.base if is_hub_name else Path(config.base).name


def _what(config: RunConfig, facts: ModelFacts) -> str:
    kind = "A LoRA of" if config.diffusion.lora else "Made of"
    cameras = "is given each view's camera" if config.diffusion.conditions.poses else "is given no cameras"
    made = f"turntables of {facts.num_views} views" if facts.turns else f"clips of {facts.num_views} frames"
    begin = f"{kind} `{_base_name(config)}`" if config.base else "A model trained from random weights"
    return f"{begin} by mv3d: one picture of an object becomes {made}, {facts.resolution_px} px wide; it {cameras}."


def _training(config: RunConfig, steps: int) -> dict[str, Any]:
    stage, loop = config.diffusion, config.diffusion.loop
    rows: dict[str, Any] = {"base": _base_name(config), "steps": steps, "batch": loop.batch_size}
    rows |= {"learning rate": f"{loop.learning_rate:g}", "optimizer": loop.optimizer, "EMA decay": loop.ema_decay}
    rows["ln sigma"] = f"N({stage.p_mean:g}, {stage.p_std:g}²)"
    if stage.lora is not None:
        rows["LoRA"] = f"rank {stage.lora.rank}, alpha {stage.lora.alpha:g}, {stage.lora.targets}"
    if stage.distillation is not None:
        rows["distilled"] = f"{stage.distillation.num_steps} steps of {stage.distillation.teacher_steps}"
    return rows


def _scores(scores: Mapping[str, float]) -> str:
    if not scores:
        return ""
    numbers = {key: f"{value:.4g}" for key, value in scores.items() if isinstance(value, (int, float))}
    return "## Scores\n\nOf the last validation, on held-out objects.\n\n" + _table(numbers)


def _data(attributions: Mapping[str, str]) -> str:
    if not attributions:
        return ""
    licences = Counter(text.rpartition("; ")[2] for text in attributions.values())
    rows = {licence: count for licence, count in sorted(licences.items())}
    total = f"{len(attributions)} objects; `ATTRIBUTION.txt` names each, its author and its licence."
    return f"## Data\n\n{total}\n\n" + _table(rows)


def _table(rows: Mapping[str, Any]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in rows.items())])

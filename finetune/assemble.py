"""Putting the averaged weights of a run together: a model folder, or a LoRA, with the licences that they carry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from finetune.checkpoint import latest_checkpoint, load_ema
from finetune.config import RunConfig
from finetune.recipe import Recipe
from finetune.stages.adapt import AdaptTraining
from finetune.stages.diffusion import DiffusionTraining
from mv3d.dataset import collection_of, read_manifest
from mv3d.errors import Mv3dError
from mv3d.files import read_json, whole_file
from mv3d.model.checkpoints import licence_files, resolve_model, save_model
from mv3d.model.lora import LORA_FILE, LoraFacts, save_lora, targets_pattern
from mv3d.model.unet import OrbitUNet
from mv3d.pack import pack_orbits

_NOTED = "trained_on.json"


def assemble_model(run: RunConfig, device: torch.device | str = "cpu") -> None:
    """Write ``run/model`` in the diffusers layout, half precision, once every stage has a checkpoint.

    ``ATTRIBUTION.txt`` in it names every object that any leg was trained on, with its author and licence.
    """
    if all(latest_checkpoint(run.run / stage) for stage in ("autoencoder", "volume", "diffusion")):
        size_px = run.frames_px("diffusion")
        pack = pack_orbits(run.data, run.run / f"pack-{size_px}", size_px)
        stage = DiffusionTraining(run, pack, device)
        network = load_ema(run.run / "diffusion", stage.network)
        save_model(stage.model(network), run.run / "model", overwrite=True)
        trained_on = {pack.entries[k].object_id for k in pack.indices("train")}
        note_objects(run.run, run.data, trained_on)
        (run.run / "model" / "ATTRIBUTION.txt").write_text(_attribution(run.run))


def save_adaptation(recipe: Recipe, stage: AdaptTraining) -> Path:
    """Write what a recipe made so far: ``run/model``, or ``run/lora`` with a LoRA; returns the folder or the file.

    The base's licence lies beside it, and ``ATTRIBUTION.txt``.
    """
    unet = load_ema(recipe.run / "adapt", stage.network)
    assert isinstance(unet, OrbitUNet)
    base = resolve_model(recipe.base)
    if recipe.lora is None:
        made = folder = recipe.run / "model"
        save_model(stage.model, folder, overwrite=True)
    else:
        folder = recipe.run / "lora"
        made = folder / LORA_FILE
        facts = LoraFacts(
            base=base.stem if base.is_file() else base.name,
            licence=stage.model.facts.licence,
            rank=recipe.lora.rank,
            alpha=recipe.lora.alpha,
            targets=targets_pattern(recipe.lora.targets),
            pose=stage.pose_base is not None,
            sampling=stage.sampling,
        )
        save_lora(unet, made, facts, pose_base=stage.pose_base)
    for path in licence_files(base):
        shutil.copyfile(path, folder / path.name)
    note_objects(recipe.run, recipe.data, stage.trained_on)
    (folder / "ATTRIBUTION.txt").write_text(_attribution(recipe.run))
    return made


def note_objects(run: Path, places: Sequence[Path], object_ids: Iterable[str]) -> None:
    """Remember in a run folder whose objects it is trained on; another leg may be given others."""
    folders = map(collection_of, places)
    manifest = {object_id: entry for folder in folders for object_id, entry in read_manifest(folder).items()}
    noted = {name: f"{manifest[name].attribution}; {manifest[name].licence}" for name in object_ids if name in manifest}
    known = _noted(run) | noted
    with whole_file(run / _NOTED) as partial:
        partial.write_text(json.dumps(dict(sorted(known.items())), indent=0) + "\n")


def _noted(run: Path) -> dict[str, str]:
    path = run / _NOTED
    try:
        return dict(read_json(path)) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        told = f"{path} cannot be read ({error}); restore it: it names the objects that the model was trained on"
        raise Mv3dError(told) from error


def _attribution(run: Path) -> str:
    return "\n".join(_noted(run).values()) + "\n"

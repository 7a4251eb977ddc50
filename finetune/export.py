"""The averaged weights of a run become a model folder, or a LoRA, with the licences that they carry."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from finetune.card import last_scores, model_card
from finetune.checkpoint import latest_checkpoint, load_ema
from finetune.config import RunConfig
from finetune.consistency import sampling_facts
from finetune.data import attribution, noted_objects
from finetune.networks import Trainee, make_trainee
from finetune.wan_networks import WanTrainee, is_wan, make_wan_trainee
from mv3d.model.checkpoints import licence_files, resolve_model, save_model
from mv3d.model.lora import save_lora, targets_pattern
from mv3d.model.lora_file import LORA_FILE, LoraFacts
from mv3d.model.publishing import CARD
from mv3d.model.stock import is_stock
from mv3d.model.wan_checkpoints import save_wan
from mv3d.pack import pack_orbits


def export_model(config: RunConfig, device: torch.device | str = "cpu") -> Path | None:
    """Write what a run made so far: ``run/model`` in the diffusers layout, half precision, or ``run/lora`` with a LoRA.

    ``README.md`` in it is the model card, see `finetune.card`.
    ``ATTRIBUTION.txt`` beside it names every object that the run was ever trained on, with its author and licence; the
    licence of a base lies there too.

    Returns:
        The model folder or the LoRA file; None if a stage that belongs to it has no checkpoint yet.
    """
    if not all(latest_checkpoint(config.run / name) for name in config.stages):
        return None
    pack = None
    if config.base is None:
        size_px = config.frames_px("diffusion")
        pack = pack_orbits(config.data, config.run / f"pack-{size_px}", size_px)
    trainee = make_wan_trainee(config, device) if is_wan(config) else make_trainee(config, pack, device)
    load_ema(config.run / "diffusion", trainee.networks)
    if config.diffusion.lora is None:
        made = folder = config.run / "model"
        if isinstance(trainee, WanTrainee):
            save_wan(trainee.model, folder, overwrite=True)
        else:
            save_model(trainee.model, folder, overwrite=True)
    else:
        folder = config.run / "lora"
        made = folder / LORA_FILE
        save_lora(trainee.model.network, made, _lora_facts(config, trainee), pose_base=trainee.pose_base)
    licences = [] if config.base is None else licence_files(resolve_model(config.base))
    for path in licences:
        shutil.copyfile(path, folder / path.name)
    (folder / "ATTRIBUTION.txt").write_text(attribution(config.run))
    card = model_card(
        config,
        trainee.model.facts,
        noted_objects(config.run),
        steps=_steps_done(config.run / "diffusion"),
        scores=last_scores(config.run / "diffusion"),
        licence_file=licences[0].name if licences else None,
        is_stock=not isinstance(trainee, WanTrainee) and is_stock(trainee.model.unet),
        of_wan=isinstance(trainee, WanTrainee),
    )
    (folder / CARD).write_text(card, encoding="utf-8")
    return made


def _steps_done(run: Path) -> int:
    folder = latest_checkpoint(run)
    return 0 if folder is None else int(folder.name.split("-")[-1])


def _lora_facts(config: RunConfig, trainee: Trainee | WanTrainee) -> LoraFacts:
    assert config.base is not None
    base, lora = resolve_model(config.base), config.diffusion.lora
    assert lora is not None
    return LoraFacts(
        base=base.stem if base.is_file() else base.name,
        licence=trainee.model.facts.licence,
        rank=lora.rank,
        alpha=lora.alpha,
        targets=targets_pattern(lora.targets),
        pose=trainee.pose_base is not None,
        sampling=sampling_facts(trainee.base_facts, config),
    )

"""The stages of a model: of a new one all that its config has, of a base's the diffusion stage alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from finetune.config import RunConfig, StageName
from finetune.loop import Stage
from finetune.processes import Processes
from finetune.stages.autoencoder import AutoencoderTraining
from finetune.stages.coarse import CoarseTraining
from finetune.stages.diffusion import DiffusionTraining
from finetune.stages.flow import FlowTraining
from finetune.wan_networks import is_wan
from mv3d.pack import Pack


class NewStage(Stage, Protocol):
    """A stage that may begin with weights that are there."""

    def start_from(self, model: Path) -> None:
        """Take the initial weights from a model folder."""
        ...


_OF_FRAMES: dict[StageName, Callable[[RunConfig, Pack, torch.device], NewStage]] = {
    "autoencoder": AutoencoderTraining,
    "coarse": CoarseTraining,
}


def make_stage(name: StageName, config: RunConfig, pack: Pack | None, processes: Processes) -> NewStage | FlowTraining:
    """Make a stage; a new model's are given the pack of their orbits. What a base is says how it is trained."""
    if name == "diffusion":
        return FlowTraining(config, processes) if is_wan(config) else DiffusionTraining(config, pack, processes)
    assert pack is not None
    return _OF_FRAMES[name](config, pack, processes.device)

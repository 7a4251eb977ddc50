"""The stages of the mini model, in the order they are trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from finetune.config import RunConfig
from finetune.loop import Stage
from finetune.stages.autoencoder import AutoencoderTraining
from finetune.stages.coarse import CoarseTraining
from finetune.stages.diffusion import DiffusionTraining
from finetune.stages.volume import VolumeTraining
from mv3d.pack import Pack


class NewStage(Stage, Protocol):
    """A stage of a model that is made anew."""

    def start_from(self, model: Path) -> None:
        """Take the initial weights from a model folder."""
        ...


STAGES: dict[str, Callable[[RunConfig, Pack, torch.device], NewStage]] = {
    "autoencoder": AutoencoderTraining,
    "volume": VolumeTraining,
    "coarse": CoarseTraining,
    "diffusion": DiffusionTraining,
}

"""The stages of the mini model, in the order they are trained."""

from __future__ import annotations

from collections.abc import Callable

from finetune.config import RunConfig
from finetune.data import Pack
from finetune.loop import Stage
from finetune.stages.autoencoder import AutoencoderTraining
from finetune.stages.diffusion import DiffusionTraining
from finetune.stages.volume import VolumeTraining

STAGES: dict[str, Callable[[RunConfig, Pack], Stage]] = {
    "autoencoder": AutoencoderTraining,
    "volume": VolumeTraining,
    "diffusion": DiffusionTraining,
}

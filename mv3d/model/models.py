"""The kinds of models, of which all make views of a picture's object: SVD's kind and Wan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from mv3d.cameras import Camera
from mv3d.model import checkpoints
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.coarse import CoarseNet
from mv3d.model.coarse_stage import CoarseOrbit
from mv3d.model.facts import SampleSettings
from mv3d.model.hub import resolve_model
from mv3d.model.long_clips import divide_views
from mv3d.model.pipeline import make_conditions, sample_views
from mv3d.model.wan_checkpoints import WanModel, is_wan_folder, load_wan
from mv3d.model.wan_sampling import sample_wan

AnyModel = OrbitModel | WanModel
Model = TypeVar("Model", bound=AnyModel)


def load_any_model(
    name_or_folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    coarse: CoarseNet | None = None,
) -> AnyModel:
    """Load what `mv3d.model.checkpoints.load_model` does, or a folder of Wan; arguments and errors are the same."""
    place = resolve_model(name_or_folder, revision)
    if not is_wan_folder(place):
        return checkpoints.load_model(name_or_folder, device, dtype, revision, coarse)
    is_here = Path(name_or_folder).expanduser().exists()
    return load_wan(place, place.name if is_here else str(name_or_folder), device, dtype)


def sample_clip(
    model: AnyModel,
    picture: Tensor,
    cameras: Sequence[Camera],
    settings: SampleSettings,
    on_step: Callable[[int, int], None] | None = None,
    coarse: CoarseOrbit | None = None,
) -> Tensor:
    """Views (F, 4, S, S) from F cameras, straight RGBA in [0, 1], S the model's ``output_px``.

    Args:
        model: of any kind.
        picture: (4, S, S) straight RGBA, best of the model's ``output_px``.
        cameras: the picture's first. More than an `OrbitModel` of orbits makes at once are made in parts, if it sees
            cameras.
        settings: how; the views are as many as the cameras.
        on_step: called with the steps done and in all.
        coarse: of these cameras, where it is there already.
    """
    if isinstance(model, WanModel):
        return sample_wan(model, picture, cameras, settings, on_step)
    conditions = make_conditions(model, picture, cameras, settings.seed, coarse)
    divides = model.facts.turns and model.is_camera_conditioned
    long = divide_views(len(cameras), model.facts.num_views) if divides else None
    return sample_views(model, conditions, replace(settings, num_views=len(cameras)), on_step, long)

"""A model that is loaded in two stages: what finds surfaces at once, what makes views when they are wanted.

The networks of the second stage, and diffusers, which they come from, take most of a model's time to load. A preview
does without.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from mv3d.errors import Mv3dError
from mv3d.model.coarse import CoarseNet
from mv3d.model.coarse_folder import COARSE_FOLDER, load_coarse
from mv3d.model.facts import FACTS_KEY, ModelFacts, load_facts
from mv3d.model.hub import resolve_model
from mv3d.model.placement import asked_placement, explained_memory
from mv3d.model.sizes import check_sizes
from mv3d.model.weights import load_json, shapes_in
from mv3d.model_options import ModelOptions

if TYPE_CHECKING:
    from mv3d.model.lora import LoraUse
    from mv3d.model.models import AnyModel

MaybeStaged: TypeAlias = "AnyModel | StagedModel"


@dataclass(frozen=True, eq=False)
class StagedModel:
    """A model of orbits, with its coarse stage loaded; it has what the first stage asks of a whole one."""

    facts: ModelFacts
    coarse: CoarseNet
    """Finds the surface and estimates a picture's elevation."""
    output_px: int
    """Width and height of the pictures that the model takes and gives."""
    device: torch.device
    """Where its networks compute, and what they are given has to be."""
    load: Callable[[], AnyModel]
    """Loads the whole model around the same networks."""

    @cached_property
    def whole(self) -> AnyModel:
        """All of the model, loaded when it is first asked for; raises `Mv3dError` where it cannot be."""
        return self.load()

    def prepare(self) -> None:
        """Begin to import what the rest is loaded with, beside what is computed meanwhile."""
        if "whole" not in vars(self):
            threading.Thread(target=_import_loading, daemon=True).start()

    @property
    def is_camera_conditioned(self) -> bool:
        """Whether the views' cameras reach the model."""
        return self.whole.is_camera_conditioned


def whole_model(model: MaybeStaged) -> AnyModel:
    """The model with all its networks, which are loaded if they are not there yet."""
    return model.whole if isinstance(model, StagedModel) else model


def load_in_stages(
    name: str, device: str, options: ModelOptions, loras: Sequence[LoraUse] = (), *, fuse: bool = True
) -> MaybeStaged:
    """Load a model as `mv3d.model.loading.load_ready_model` does, but of one that finds surfaces only what does.

    Its other networks are loaded when they are asked for; errors that concern them are raised then. With LoRAs all of
    it is loaded at once.
    """
    place = resolve_model(name, options.revision)

    def load(coarse: CoarseNet | None) -> AnyModel:
        _import_loading()
        from mv3d.model.loading import load_ready_model

        return load_ready_model(name, device, options, loras, fuse=fuse, coarse=coarse)

    # Whether it compiles is to be known before anything is made; LoRAs change what a model says of itself.
    if options.compile or loras or not _is_staged(place):
        return load(None)
    placement = asked_placement(device, options)
    facts = load_facts(load_json(place / "model_index.json"), place, name)
    output_px = facts.resolution_px * _upscale_factor(place / "vae")
    with explained_memory(placement, "load the model"):
        coarse = load_coarse(place)
        assert coarse is not None
        coarse.to(placement.device)
    return StagedModel(facts, coarse, output_px, placement.device, lambda: load(coarse))


def _import_loading() -> None:
    """Import `mv3d.model.loading`, and with it diffusers: seconds."""
    with _uncollected():
        import mv3d.model.loading  # noqa: F401


@contextmanager
def _uncollected() -> Iterator[None]:
    """Search for no garbage: imports make none, and many objects, in which it takes a fifth of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _is_staged(place: Path) -> bool:
    """Whether a model is a folder of ours with a network that finds surfaces."""
    return (place / COARSE_FOLDER).is_dir() and FACTS_KEY in load_json(place / "model_index.json")


def _upscale_factor(folder: Path) -> int:
    """`mv3d.model.autoencoder.upscale_factor` of an autoencoder on disk."""
    config = load_json(folder / "config.json")
    check_sizes(config, shapes_in(folder), str(folder / "config.json"))
    factor = config.get("upscale_factor", 1)
    if not isinstance(factor, int):
        raise Mv3dError(f"{folder / 'config.json'}: upscale_factor {factor!r} is no whole number")
    return factor

"""A picture made of words, by any text-to-image model of diffusers: Stable Diffusion, SDXL, SD3, FLUX and others."""

from __future__ import annotations

import gc
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mv3d.errors import Mv3dError
from mv3d.model.hub import explained_hub
from mv3d.model.placement import Placement, explained_memory, is_out_of_memory
from mv3d.model_options import Dtype, ModelOptions
from mv3d.prompt import Prompt

_INDEX = "model_index.json"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_HALF = "fp16"  # how files of 16 bits are called: half the download, which nobody sees in a picture


def make_picture(
    prompt: Prompt, device: str, kept: ModelOptions, on_step: Callable[[int, int], None] | None = None
) -> Image.Image:
    """The picture (RGB) that a model makes of words; its memory is free again afterwards.

    Args:
        prompt: the words, the model, and the seed: equal ones give equal pixels on one machine.
        device: of torch, where it computes.
        kept: in which numbers, and how much of it is on the device.
        on_step: called with the sampling steps done and in all.

    Raises:
        Mv3dError: if there is no such model, it is no text-to-image model, or it makes no picture of these words.
    """
    name = prompt.options.text_model
    placement = Placement(torch.device(device), kept.offload)
    try:
        with quiet_libraries(), explained_memory(placement, "make the picture of the words"):
            folder = find_text_model(name)
            with _explained(f"{name} is no text-to-image model that diffusers can load"):
                pipeline = _load(folder, placement, kept.dtype)
            with _explained(f"{name} makes no picture of these words"):
                return _draw(pipeline, prompt, on_step)
    finally:
        gc.collect()  # a pipeline's parts know each other; a model of orbits wants its place
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def find_text_model(name: str) -> Path:
    """The folder of a text-to-image model; one on the hub is downloaded, in 16 bits where there is such a copy.

    Raises:
        Mv3dError: if there is none, or the hub does not give it.
    """
    place = Path(name).expanduser()
    if place.is_dir():
        if not (place / _INDEX).is_file():
            raise Mv3dError(f"{name} holds no model of diffusers: it has no {_INDEX}", argument="text_model")
        return place
    if name[:1] in ("", ".", "~", "/") or name.count("/") != 1 or place.exists():
        raise Mv3dError(
            f"there is no text-to-image model {name}; give a folder of diffusers' layout, or owner/name on the hub",
            argument="text_model",
        )
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    try:
        with explained_hub(name):
            try:
                return Path(DiffusionPipeline.download(name, variant=_HALF, use_safetensors=True))
            except ValueError:  # there is no such copy
                return Path(DiffusionPipeline.download(name, use_safetensors=True))
    except Mv3dError as error:
        raise Mv3dError(str(error), argument="text_model") from error


def _load(folder: Path, placement: Placement, dtype: Dtype) -> Any:
    from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

    pipeline: Any = AutoPipelineForText2Image.from_pretrained(
        folder,
        variant=_HALF if any(folder.glob(f"*/*.{_HALF}*.safetensors")) else None,
        dtype=_DTYPES.get(dtype) or _usual_dtype(placement.device),
        use_safetensors=True,
        local_files_only=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    if placement.offload == "model":
        pipeline.enable_model_cpu_offload(device=placement.device)
    elif placement.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=placement.device)
    else:
        pipeline.to(placement.device)
    return pipeline


def _usual_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16


def _draw(pipeline: Any, prompt: Prompt, on_step: Callable[[int, int], None] | None) -> Image.Image:
    asked: dict[str, Any] = {
        "prompt": prompt.asked,
        "num_inference_steps": prompt.options.text_steps,
        "guidance_scale": prompt.options.text_guidance,
        "generator": torch.Generator("cpu").manual_seed(prompt.seed),  # the same on every device
    }
    if on_step is not None and "callback_on_step_end" in inspect.signature(pipeline.__call__).parameters:
        asked["callback_on_step_end"] = _reporting(on_step)
    made = pipeline(**{key: value for key, value in asked.items() if value is not None})
    if any(getattr(made, "nsfw_content_detected", None) or ()):
        raise Mv3dError("its safety checker holds the picture back; try other words, or another seed")
    return made.images[0].convert("RGB")


def _reporting(on_step: Callable[[int, int], None]) -> Callable[..., dict[str, Any]]:
    def report(pipeline: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, max(step + 1, len(pipeline.scheduler.timesteps)))
        return kept

    return report


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Whatever many kinds of models stumble over, in one line."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Mv3dError(f"{what}: {lines[0]}", argument="text_model") from error


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without the remarks that the libraries make for those who develop with them."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = [(library, library.get_verbosity()) for library in (of_diffusers, of_transformers)]
    with warnings.catch_warnings(action="ignore"):
        for library, _ in before:
            library.set_verbosity_error()
            library.disable_progress_bar()
        try:
            yield
        finally:
            for library, verbosity in before:
                library.set_verbosity(verbosity)
                library.enable_progress_bar()

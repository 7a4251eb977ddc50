"""Wan 2.2 TI2V-5B on disk, in the diffusers layout.

``model_index.json  transformer/  vae/  scheduler/scheduler_config.json  prompt_embeds.safetensors``, and in the folder
as it is published ``text_encoder/  tokenizer/`` in place of the last. Facts stand in ``model_index.json`` as in those
of `mv3d.model.checkpoints`; without them the model is taken to be Wan as it is published.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import nn

from mv3d.errors import Mv3dError
from mv3d.files import whole_folder
from mv3d.model.facts import FACTS_KEY, ModelFacts, licence_of, load_facts
from mv3d.model.flow import NUM_TIMESTEPS
from mv3d.model.placement import Placement
from mv3d.model.wan_prompt import PROMPT_FILE, PromptEmbeds, load_prompt, save_prompt
from mv3d.model.wan_transformer import (
    KEPT_IN_FLOAT32,
    POSE_CHANNELS,
    STOCK_TRANSFORMER,
    OrbitTransformer,
    stock_arguments,
    with_pose_columns,
)
from mv3d.model.wan_video import VIEWS_PER_LATENT
from mv3d.model.weights import DIFFUSERS_WEIGHTS, load_json, load_module, load_weights, save_module

_PIPELINES = ("WanPipeline", "WanImageToVideoPipeline")
_SCHEDULERS: dict[str, Any] = {cls.__name__: cls for cls in (UniPCMultistepScheduler, FlowMatchEulerDiscreteScheduler)}
WAN_PX = 704
"""The shorter side of the videos that TI2V-5B was made for."""

_LICENCE = "Apache-2.0"


@dataclass(frozen=True, eq=False)
class WanModel:
    """All networks of a model, on one device, in evaluation mode; it has those of `OrbitModel` that it can have."""

    transformer: OrbitTransformer
    vae: AutoencoderKLWan
    prompt: PromptEmbeds
    scheduler: dict[str, Any]
    """The config of the scheduler of diffusers by which it is sampled."""
    facts: ModelFacts
    placement: Placement | None = None

    coarse: ClassVar[None] = None
    has_alpha: ClassVar[bool] = False

    @property
    def network(self) -> OrbitTransformer:
        """What is sampled, trained and changed by LoRAs."""
        return self.transformer

    @property
    def large_networks(self) -> list[nn.Module]:
        """Those that are worth being away while they do not work."""
        return [self.transformer, self.vae]

    @property
    def is_camera_conditioned(self) -> bool:
        """Whether the views' cameras reach the model."""
        return bool(self.transformer.config["pose_channels"])

    @property
    def placed(self) -> Placement:
        """Where the networks compute."""
        return self.placement or Placement(self.transformer.device)

    @property
    def device(self) -> torch.device:
        """Where they compute, and what they are given has to be."""
        return self.placed.device

    @property
    def output_px(self) -> int:
        """Width and height of the pictures that the model takes and gives."""
        return self.facts.resolution_px

    @property
    def latent_size(self) -> int:
        """Width and height of the latents."""
        return self.facts.resolution_px // self.vae.config["scale_factor_spatial"]


def is_wan_folder(place: Path) -> bool:
    """Whether a model's folder says that it is one of Wan."""
    index = place / "model_index.json"
    return index.is_file() and load_json(index).get("_class_name") in _PIPELINES


def network_folder(place: Path) -> Path:
    """Where in a model's folder the network that is sampled lies, of either kind."""
    return place / ("transformer" if is_wan_folder(place) else "unet")


def load_wan(
    folder: Path,
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    kept: Sequence[str] = KEPT_IN_FLOAT32,
) -> WanModel:
    """Load a folder for which `is_wan_folder`; a stock transformer gets pose columns, which are zero.

    Args:
        folder: of the model.
        name: of the model, if the folder does not say it.
        device: of torch.
        dtype: of the transformer. The autoencoder is in float32, in which diffusers' page on Wan runs it.
        kept: names of the transformer's modules and parameters that are in float32 all the same.

    Raises:
        Mv3dError: if a part is missing or damaged, does not belong to the others, or is of another kind of Wan.
    """
    index = load_json(folder / "model_index.json")
    if not index.get("expand_timesteps") or any(index.get("transformer_2") or ()):
        raise Mv3dError(
            f"{folder} is a Wan of another kind than mv3d takes, Wan 2.2 TI2V-5B: its model_index.json has no "
            "expand_timesteps, or a second transformer"
        )
    model = WanModel(
        # Of ours, one that has poses says so itself.
        transformer=_load_transformer(folder / "transformer", dtype, kept, gets_poses=FACTS_KEY not in index),
        vae=load_module(_make_vae, folder / "vae"),
        prompt=load_prompt(folder),
        scheduler=load_json(folder / "scheduler" / "scheduler_config.json"),
        facts=_facts(index, folder, name),
    )
    _check_parts(model, str(folder))
    for network in model.large_networks:
        nn.Module.to(network, device)
    return model


def save_wan(model: WanModel, folder: Path, *, dtype: torch.dtype = torch.bfloat16, overwrite: bool = False) -> None:
    """Write a model folder with a transformer of type ``dtype``, without a text encoder.

    Raises:
        Mv3dError: if the folder exists and ``overwrite`` is not set.
    """
    transformer, has_poses = model.transformer, model.is_camera_conditioned
    config = json.loads(transformer.to_json_string())
    if not has_poses:
        config.pop("pose_channels")
        config["_class_name"] = STOCK_TRANSFORMER
    ours, stock = [OrbitTransformer.__module__, OrbitTransformer.__name__], ["diffusers", STOCK_TRANSFORMER]
    index = {
        "_class_name": "WanImageToVideoPipeline",
        "expand_timesteps": True,
        "boundary_ratio": None,
        "transformer": ours if has_poses else stock,
        "transformer_2": [None, None],
        "vae": ["diffusers", type(model.vae).__name__],
        "scheduler": ["diffusers", model.scheduler["_class_name"]],
        "text_encoder": [None, None],
        "tokenizer": [None, None],
        "image_encoder": [None, None],
        "image_processor": [None, None],
        FACTS_KEY: asdict(model.facts),
    }
    with whole_folder(folder, overwrite=overwrite) as partial:
        weights = DIFFUSERS_WEIGHTS
        save_module(transformer, config, partial / "transformer", weights=weights, dtype=dtype, kept=KEPT_IN_FLOAT32)
        save_module(model.vae, json.loads(model.vae.to_json_string()), partial / "vae", weights=weights)
        save_prompt(model.prompt, partial / PROMPT_FILE)
        (partial / "scheduler").mkdir()
        _write_json(model.scheduler, partial / "scheduler" / "scheduler_config.json")
        _write_json(index, partial / "model_index.json")


def make_scheduler(model: WanModel, num_steps: int, device: torch.device) -> Any:
    """A new scheduler of diffusers, ready for so many steps."""
    scheduler = _SCHEDULERS[model.scheduler["_class_name"]].from_config(model.scheduler)
    scheduler.set_timesteps(num_steps, device=device)
    return scheduler


# -------------------------------------------------------------------------------------------------
# Parts.


def _load_transformer(folder: Path, dtype: torch.dtype, kept: Sequence[str], *, gets_poses: bool) -> OrbitTransformer:
    config = load_json(folder / "config.json")
    if config.get("_class_name") == OrbitTransformer.__name__:
        return load_module(_make_transformer, folder, dtype=dtype, kept=kept)
    poses = POSE_CHANNELS if gets_poses else 0
    return with_pose_columns(load_weights(folder, dtype, kept), config, poses).eval()


def _make_transformer(config: dict[str, Any]) -> OrbitTransformer:
    return OrbitTransformer(**stock_arguments(config))


def _make_vae(config: dict[str, Any]) -> AutoencoderKLWan:
    known = inspect.signature(AutoencoderKLWan.__init__).parameters
    return AutoencoderKLWan(**{key: value for key, value in config.items() if key in known})


def _facts(index: dict[str, Any], folder: Path, name: str) -> ModelFacts:
    if FACTS_KEY in index:
        return load_facts(index, folder, name)
    sampling: dict[str, Any] = {"num_steps": 50, "guidance": "constant", "guidance_high": 5.0}
    return ModelFacts(name, licence_of(folder, name, _LICENCE), WAN_PX, turns=False, **sampling)


def _check_parts(model: WanModel, place: str) -> None:
    """Refuse networks that are whole each, and do not belong together."""
    network, vae, scheduler = model.transformer.config, model.vae.config, model.scheduler
    cell = vae["scale_factor_spatial"] * network["patch_size"][1]
    pairs = {
        "the transformer's in_channels and the autoencoder's z_dim": (network["in_channels"], vae["z_dim"]),
        "the transformer's out_channels and the autoencoder's z_dim": (network["out_channels"], vae["z_dim"]),
        "the transformer's text_dim and the words' embedding": (network["text_dim"], model.prompt.width),
        "the autoencoder's scale_factor_temporal and the views in a latent": (
            vae["scale_factor_temporal"],
            VIEWS_PER_LATENT,
        ),
        "the scheduler's num_train_timesteps and Wan's": (scheduler.get("num_train_timesteps"), NUM_TIMESTEPS),
        f"resolution_px {model.facts.resolution_px} in the transformer's cells of {cell} px, rounded": (
            model.facts.resolution_px / cell,
            model.facts.resolution_px // cell,
        ),
    }
    for what, (one, other) in pairs.items():
        if one != other:
            raise Mv3dError(f"the parts of {place} do not belong together: {what} are {one} and {other}")
    kind = scheduler.get("_class_name")
    if kind not in _SCHEDULERS or not scheduler.get("use_flow_sigmas", kind != UniPCMultistepScheduler.__name__):
        raise Mv3dError(
            f"{place}: its scheduler {kind} is none of flow matching that mv3d knows: {' or '.join(_SCHEDULERS)}, the "
            "former with use_flow_sigmas"
        )


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")

"""A whole model on disk, in the diffusers layout, and by name: the bundled one, a folder, or a Hugging Face repository.

``model_index.json  unet/  vae/  image_encoder/  scheduler/scheduler_config.json  [volume/]  [coarse/]``. What
diffusers has no place for stands in ``model_index.json`` under the one key ``"mv3d"``; without it the model is taken to
be SVD.
Stability AI's own single files are read too, by `mv3d.model.stability`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import mv3d
from mv3d.errors import Mv3dError
from mv3d.files import whole_folder
from mv3d.model.autoencoder import Autoencoder, RgbaAutoencoder, upscale_factor
from mv3d.model.coarse import CoarseConfig, CoarseNet
from mv3d.model.sampling import GuidanceKind
from mv3d.model.stability import load_stability_file
from mv3d.model.surgery import from_stock
from mv3d.model.unet import OrbitUNet
from mv3d.model.volume import CoarseVolume, CoarseVolumeConfig
from mv3d.model.weights import DIFFUSERS_WEIGHTS, load_json, load_module, load_strict, load_weights, save_module

__all__ = ["ModelFacts", "OrbitModel", "load_model", "load_module", "load_strict", "save_model", "save_module"]

MINI = "mini"

_FACTS_KEY = "mv3d"
_PAPERS = ("*.json", "LICENSE*", "README.md")


@dataclass(frozen=True)
class ModelFacts:
    """What a model was made for, and how it is sampled unless the user says otherwise. The defaults are SVD's."""

    name: str
    licence: str
    resolution_px: int = 576
    """Of the frames that are encoded; an autoencoder that enlarges gives larger ones, see `OrbitModel.output_px`."""
    num_views: int = 21
    added_time_ids: tuple[float, ...] = (6.0, 127.0, 0.02)
    """Frames per second less one, motion, and, always last, the noise added to the input picture."""
    sigma_min: float = 0.002
    sigma_max: float = 700.0
    num_steps: int = 25
    guidance: GuidanceKind = "linear"
    guidance_low: float = 1.0
    guidance_high: float = 3.0
    teacher_steps: int | None = None
    """Of a consistency model: the sampling steps that it was distilled from; its few are taken from their levels."""
    turns: bool = True
    """It makes orbits, and not clips of a camera that moves in ways that nobody told it."""


@dataclass(frozen=True, eq=False)
class OrbitModel:
    """All networks of a model, on one device, in evaluation mode."""

    unet: OrbitUNet
    vae: Autoencoder
    image_encoder: CLIPVisionModelWithProjection
    volume: CoarseVolume | None
    facts: ModelFacts
    coarse: CoarseNet | None = None
    """Estimates a picture's elevation."""

    @property
    def output_px(self) -> int:
        """Width and height of the pictures that the model takes and gives."""
        return self.facts.resolution_px * upscale_factor(self.vae)


def save_model(model: OrbitModel, folder: Path, *, dtype: torch.dtype = torch.float16, overwrite: bool = False) -> None:
    """Write a model folder with weights of type ``dtype``.

    Raises:
        Mv3dError: if the folder exists and ``overwrite`` is not set.
    """
    with whole_folder(folder, overwrite=overwrite) as partial:
        for name, network in (("unet", model.unet), ("vae", model.vae)):
            config = json.loads(network.to_json_string())
            save_module(network, config, partial / name, weights=DIFFUSERS_WEIGHTS, dtype=dtype)
        encoder = model.image_encoder
        config = encoder.config.to_dict() | {"architectures": [type(encoder).__name__]}
        save_module(encoder, config, partial / "image_encoder", dtype=dtype)
        if model.volume is not None:
            save_module(model.volume, asdict(model.volume.config), partial / "volume", dtype=dtype)
        if model.coarse is not None:
            save_module(model.coarse, asdict(model.coarse.config), partial / "coarse", dtype=dtype)
        (partial / "scheduler").mkdir()
        _write_json(_scheduler_config(model.facts), partial / "scheduler" / "scheduler_config.json")
        _write_json(_model_index(model), partial / "model_index.json")


def load_model(
    name_or_folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> OrbitModel:
    """Load ``"mini"``, a model folder, or ``owner/name`` on the Hugging Face hub, which is then downloaded once.

    A stock SVD folder becomes an `OrbitUNet` whose pose columns are zero, so it makes SVD's videos until it is trained.
    A single file of Stability AI (SV3D_u, SV3D_p, SVD) is taken as well.

    Raises:
        Mv3dError: if there is no such model, or if a file is missing, damaged or of the wrong shape (keys are listed).
    """
    place = resolve_model(name_or_folder)
    named = place.name if Path(name_or_folder).expanduser().exists() else str(name_or_folder)
    model = _load_file(place, dtype) if place.is_file() else _load_folder(place, named, dtype)
    networks: list[nn.Module | None] = [model.unet, model.vae, model.image_encoder, model.volume, model.coarse]
    for network in networks:
        if network is not None:
            network.to(device)
    return model


def _load_folder(folder: Path, name: str, dtype: torch.dtype) -> OrbitModel:
    index = load_json(folder / "model_index.json")
    volume, coarse = folder / "volume", folder / "coarse"
    return OrbitModel(
        unet=_load_unet(folder / "unet", dtype),
        vae=load_module(_make_vae, folder / "vae", dtype=dtype),
        image_encoder=load_module(_make_image_encoder, folder / "image_encoder", dtype=dtype),
        volume=load_module(_make_volume, volume) if volume.is_dir() else None,  # geometry: always float32
        facts=_load_facts(index, folder, name),
        coarse=load_module(_make_coarse, coarse) if coarse.is_dir() else None,
    )


def _load_file(path: Path, dtype: torch.dtype) -> OrbitModel:
    found = load_stability_file(path, dtype)
    facts = ModelFacts(name=path.stem, licence=_licence_of(path.parent, found.kind.name))
    if found.kind.is_sv3d:  # generative-models: scripts/sampling/configs/sv3d_p.yaml, simple_video_sample.py
        facts = replace(facts, added_time_ids=(1e-5,), num_steps=50, guidance="triangle", guidance_high=2.5)
    return OrbitModel(found.unet, found.vae, found.image_encoder, None, facts)


def licence_files(place: Path) -> list[Path]:
    """The texts of the licence that lie in a model folder, or beside a model file."""
    folder = place.parent if place.is_file() else place
    return sorted(path for path in folder.glob("LICENSE*") if path.is_file())


def _licence_of(folder: Path, name: str) -> str:
    """What a model card's head says of the licence; the name of the file that tells it where there is no card."""
    card = folder / "README.md"
    if card.is_file():
        head = card.read_text(errors="replace").split("---")[1:2]
        told = dict(re.findall(r"^(license\w*):\s*(\S.*?)\s*$", head[0], re.MULTILINE)) if head else {}
        licence = told.get("license_name") or told.get("license")
        if licence:
            return f"{licence}, {told['license_link']}" if "license_link" in told else licence
    files = licence_files(folder)
    return f"see {files[0].name} of {name}" if files else f"Stability AI's for {name}: see where its weights came from"


def resolve_model(name_or_folder: str | Path) -> Path:
    """The folder or file that a model's name stands for; one on the hub is downloaded.

    Raises:
        Mv3dError: if there is none.
    """
    if name_or_folder == MINI:
        return Path(mv3d.__file__).parent / "checkpoints" / MINI
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir() or (folder.is_file() and folder.suffix == ".safetensors"):
        return folder
    if isinstance(name_or_folder, str) and name_or_folder.count("/") == 1 and name_or_folder[0] not in "./~":
        return _download(name_or_folder)
    raise Mv3dError(
        f"there is no model {name_or_folder!s}; give '{MINI}', a model folder, a "
        ".safetensors file of SV3D or SVD, or owner/name on the hub"
    )


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(repository, allow_patterns=[*_PAPERS, "*/*.fp16.safetensors"]))
        if not any(folder.glob("unet/*.safetensors")):  # a model of one precision has no files by that name
            folder = Path(snapshot_download(repository, allow_patterns=[*_PAPERS, "*/*.safetensors"]))
    except (OSError, HFValidationError) as error:  # the first covers no connection, no such model and no permission
        reason = str(error).strip().splitlines()[0]
        raise Mv3dError(f"there is no folder {repository}, and the hub does not give it: {reason}") from error
    return folder


def _load_unet(folder: Path, dtype: torch.dtype) -> OrbitUNet:
    config = load_json(folder / "config.json")
    if config.get("_class_name") == OrbitUNet.__name__:
        return load_module(_make_unet, folder, dtype=dtype)
    return from_stock(load_weights(folder, dtype), config).eval()


def _make_unet(config: dict[str, Any]) -> OrbitUNet:
    unet = OrbitUNet.from_config(config)
    assert isinstance(unet, OrbitUNet)
    return unet


def _make_vae(config: dict[str, Any]) -> Autoencoder:
    if config.get("_class_name") == RgbaAutoencoder.__name__:
        # Its file also lists what it fixes for the class it derives from.
        known = ("latent_channels", "scaling_factor", "upscale_factor", "decoder_sees_views")
        given = {key: config[key] for key in known if key in config}
        return RgbaAutoencoder(tuple(config["block_out_channels"]), **given)
    for cls in (AutoencoderKL, AutoencoderKLTemporalDecoder):
        if config.get("_class_name") == cls.__name__:
            vae = cls.from_config(config)
            assert isinstance(vae, cls)
            return vae
    raise Mv3dError(f"{config.get('_class_name')} is no autoencoder of Stable Diffusion, SVD or mv3d")


def _make_image_encoder(config: dict[str, Any]) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(config))


def _make_volume(config: dict[str, Any]) -> CoarseVolume:
    return CoarseVolume(CoarseVolumeConfig(**_with_tuples(config)))


def _make_coarse(config: dict[str, Any]) -> CoarseNet:
    return CoarseNet(CoarseConfig(**_with_tuples(config)))


def _with_tuples(config: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}


def _scheduler_config(facts: ModelFacts) -> dict[str, Any]:
    """Diffusers' name for our schedule."""
    return {
        "_class_name": "EulerDiscreteScheduler",
        "prediction_type": "v_prediction",
        "timestep_type": "continuous",
        "use_karras_sigmas": True,
        "sigma_min": facts.sigma_min,
        "sigma_max": facts.sigma_max,
    }


def _model_index(model: OrbitModel) -> dict[str, Any]:
    index = {
        "_class_name": "StableVideoDiffusionPipeline",
        "unet": [OrbitUNet.__module__, OrbitUNet.__name__],
        "vae": [_library_of(model.vae), type(model.vae).__name__],
        "image_encoder": ["transformers", type(model.image_encoder).__name__],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }
    return index | {_FACTS_KEY: asdict(model.facts)}


def _library_of(network: torch.nn.Module) -> str:
    """Where a pipeline's index says that a class comes from: diffusers itself, or the module of ours."""
    module = type(network).__module__
    return "diffusers" if module.startswith("diffusers.") else module


def _load_facts(index: dict[str, Any], folder: Path, name: str) -> ModelFacts:
    known = index.get(_FACTS_KEY)
    if known is None:
        scheduler = load_json(folder / "scheduler" / "scheduler_config.json")
        low, high = (scheduler.get(key) or getattr(ModelFacts, key) for key in ("sigma_min", "sigma_max"))
        return ModelFacts(name=name, licence=_licence_of(folder, name), sigma_min=float(low), sigma_max=float(high))
    unknown = set(known) - {f.name for f in dataclasses.fields(ModelFacts)}
    if unknown or not {"name", "licence"} <= set(known):
        raise Mv3dError(f"{folder / 'model_index.json'} has no name or licence, or unknown facts: {sorted(unknown)}")
    return ModelFacts(**known | {"added_time_ids": tuple(known.get("added_time_ids", ModelFacts.added_time_ids))})


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")

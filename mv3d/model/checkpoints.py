"""A whole model on disk, in the diffusers layout.

``model_index.json  unet/  vae/  image_encoder/  scheduler/scheduler_config.json  [coarse/]``, and for a
model that diffusers' own pipeline loads ``feature_extractor/``. What diffusers has no place for stands in
``model_index.json`` under the one key ``"mv3d"``; without it the model is taken to be SVD.
Stability AI's own single files are read too, by `mv3d.model.stability`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mv3d.errors import Mv3dError
from mv3d.files import whole_folder
from mv3d.model.autoencoder import Autoencoder, RgbaAutoencoder, upscale_factor
from mv3d.model.coarse import CoarseNet
from mv3d.model.coarse_folder import COARSE_FOLDER, load_coarse
from mv3d.model.facts import FACTS_KEY, ModelFacts, licence_files, licence_of, load_facts
from mv3d.model.hub import resolve_model
from mv3d.model.placement import Placement
from mv3d.model.stability import load_stability_file
from mv3d.model.stock import CLIP_PROCESSOR, STOCK, is_stock, stock_config
from mv3d.model.surgery import from_stock
from mv3d.model.unet import OrbitUNet
from mv3d.model.weights import DIFFUSERS_WEIGHTS, load_json, load_module, load_strict, load_weights, save_module

__all__ = [
    "ModelFacts",
    "OrbitModel",
    "licence_files",
    "load_model",
    "load_module",
    "load_strict",
    "resolve_model",
    "save_model",
    "save_module",
]

_FEATURES = "feature_extractor"
_POSE_WIDTH = 512  # of SV3D


@dataclass(frozen=True, eq=False)
class OrbitModel:
    """All networks of a model, on one device, in evaluation mode."""

    unet: OrbitUNet
    vae: Autoencoder
    image_encoder: CLIPVisionModelWithProjection
    facts: ModelFacts
    coarse: CoarseNet | None = None
    """Finds the surface and estimates a picture's elevation."""
    placement: Placement | None = None
    """Where networks compute, if they are not to stay where they are; see `mv3d.model.loading`."""

    @property
    def network(self) -> OrbitUNet:
        """What is sampled, trained and changed by LoRAs."""
        return self.unet

    @property
    def large_networks(self) -> list[nn.Module]:
        """Those that are worth being away while they do not work."""
        return [self.unet, self.vae, self.image_encoder]

    @property
    def is_camera_conditioned(self) -> bool:
        """Whether the views' cameras reach the model, as poses or through coarse views (SV3D_u has neither)."""
        return bool(self.unet.config["pose_embed_dim"] or self.unet.config["coarse_channels"])

    @property
    def has_alpha(self) -> bool:
        """Whether its frames say where the object is; else it stands before white."""
        return self.vae.config["in_channels"] == 4

    @property
    def placed(self) -> Placement:
        """Where the networks compute."""
        return self.placement or Placement(self.unet.device)

    @property
    def device(self) -> torch.device:
        """Where they compute, and what they are given has to be."""
        return self.placed.device

    @property
    def output_px(self) -> int:
        """Width and height of the pictures that the model takes and gives."""
        return self.facts.resolution_px * upscale_factor(self.vae)


def save_model(model: OrbitModel, folder: Path, *, dtype: torch.dtype = torch.float16, overwrite: bool = False) -> None:
    """Write a model folder with weights of type ``dtype``.

    One without poses and coarse views is what diffusers' ``StableVideoDiffusionPipeline.from_pretrained`` loads.

    Raises:
        Mv3dError: if the folder exists and ``overwrite`` is not set.
    """
    with whole_folder(folder, overwrite=overwrite) as partial:
        for name, network in (("unet", model.unet), ("vae", model.vae)):
            config = json.loads(network.to_json_string())
            if isinstance(network, OrbitUNet) and is_stock(network):
                config = stock_config(config)
            save_module(network, config, partial / name, weights=DIFFUSERS_WEIGHTS, dtype=dtype)
        encoder = model.image_encoder
        config = encoder.config.to_dict() | {"architectures": [type(encoder).__name__]}
        save_module(encoder, config, partial / "image_encoder", dtype=dtype)
        if model.coarse is not None:
            save_module(model.coarse, asdict(model.coarse.config), partial / COARSE_FOLDER, dtype=dtype)
        if is_stock(model.unet):
            (partial / _FEATURES).mkdir()
            _write_json(CLIP_PROCESSOR, partial / _FEATURES / "preprocessor_config.json")
        (partial / "scheduler").mkdir()
        _write_json(_scheduler_config(model.facts), partial / "scheduler" / "scheduler_config.json")
        _write_json(_model_index(model), partial / "model_index.json")


def load_model(
    name_or_folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    coarse: CoarseNet | None = None,
) -> OrbitModel:
    """Load ``"mini"``, a model folder, or ``owner/name`` on the Hugging Face hub, which is then downloaded once.

    A stock SVD folder becomes an `OrbitUNet` whose pose columns are zero, so it makes SVD's videos until it is trained.
    A single file of Stability AI (SV3D_u, SV3D_p, SVD) is taken as well. ``revision`` is a branch, tag or commit on the
    hub; ``coarse`` is the folder's network of that name where it is loaded already, and stays where it is.

    Raises:
        Mv3dError: if there is no such model, or if a file is missing, damaged or of the wrong shape (keys are listed).
    """
    place = resolve_model(name_or_folder, revision)
    named = place.name if Path(name_or_folder).expanduser().exists() else str(name_or_folder)
    model = _load_file(place, dtype) if place.is_file() else _load_folder(place, named, dtype, coarse)
    _check_parts(model, str(place))
    for network in (*model.large_networks, *((model.coarse,) if coarse is None else ())):
        if network is not None:
            network.to(device)
    return model


def _load_folder(folder: Path, name: str, dtype: torch.dtype, coarse: CoarseNet | None) -> OrbitModel:
    index = load_json(folder / "model_index.json")
    facts = load_facts(index, folder, name)
    pose_width = 0 if FACTS_KEY in index else _POSE_WIDTH  # of ours, one that has poses says so itself
    return OrbitModel(
        unet=_load_unet(folder / "unet", dtype, pose_width),
        vae=load_module(_make_vae, folder / "vae", dtype=dtype),
        image_encoder=load_module(_make_image_encoder, folder / "image_encoder", dtype=dtype),
        facts=facts,
        coarse=coarse or load_coarse(folder),
    )


def _load_file(path: Path, dtype: torch.dtype) -> OrbitModel:
    found = load_stability_file(path, dtype)
    facts = ModelFacts(path.stem, licence_of(path.parent, found.kind.name), turns=found.kind.is_sv3d)
    if found.kind.is_sv3d:  # generative-models: scripts/sampling/configs/sv3d_p.yaml, simple_video_sample.py
        facts = replace(facts, added_time_ids=(1e-5,), num_steps=50, guidance="triangle", guidance_high=2.5)
    return OrbitModel(found.unet, found.vae, found.image_encoder, facts)


def _check_parts(model: OrbitModel, place: str) -> None:
    """Refuse networks that are whole each, and do not belong together."""
    unet, vae, ids = model.unet.config, model.vae.config, len(model.facts.added_time_ids)
    latent, ids_dim = vae["latent_channels"], unet["projection_class_embeddings_input_dim"]
    pixels = 2 ** (len(vae["block_out_channels"]) - 1)
    pairs = {
        "UNet's ids and added_time_ids": (ids_dim / unet["addition_time_embed_dim"], ids),
        "UNet's in_channels and twice the autoencoder's latent_channels": (unet["in_channels"], 2 * latent),
        "UNet's out_channels and the autoencoder's latent_channels": (unet["out_channels"], latent),
        "UNet's coarse_channels and the autoencoder's latent_channels": (unet["coarse_channels"] or latent, latent),
        "UNet's cross_attention_dim and the image encoder's projection_dim": (
            unet["cross_attention_dim"],
            model.image_encoder.config.projection_dim,
        ),
        f"resolution_px {model.facts.resolution_px} in the autoencoder's cells of {pixels} px, rounded": (
            model.facts.resolution_px / pixels,
            model.facts.resolution_px // pixels,
        ),
    }
    for what, (one, other) in pairs.items():
        if one != other:
            raise Mv3dError(f"the parts of {place} do not belong together: {what} are {one} and {other}")


def _load_unet(folder: Path, dtype: torch.dtype, pose_width: int) -> OrbitUNet:
    config = load_json(folder / "config.json")
    if config.get("_class_name") == OrbitUNet.__name__:
        return load_module(_make_unet, folder, dtype=dtype)
    return from_stock(load_weights(folder, dtype), config, pose_embed_dim=pose_width).eval()


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
        "unet": ["diffusers", STOCK] if is_stock(model.unet) else [OrbitUNet.__module__, OrbitUNet.__name__],
        "vae": [_library_of(model.vae), type(model.vae).__name__],
        "image_encoder": ["transformers", type(model.image_encoder).__name__],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }
    if is_stock(model.unet):
        index[_FEATURES] = ["transformers", "CLIPImageProcessor"]
    return index | {FACTS_KEY: asdict(model.facts)}


def _library_of(network: torch.nn.Module) -> str:
    """Where a pipeline's index says that a class comes from: diffusers itself, or the module of ours."""
    module = type(network).__module__
    return "diffusers" if module.startswith("diffusers.") else module


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")

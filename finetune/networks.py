"""The networks of a diffusion stage: those of a new model, or a base's as the config wants them to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from finetune.backbone import load_imagenet_weights
from finetune.base_storage import store_base
from finetune.checkpoint import load_ema
from finetune.config import AutoencoderStage, RunConfig
from finetune.consistency import sampling_facts
from finetune.data import draw
from finetune.diffusion_config import DiffusionStage
from finetune.discriminator import PatchDiscriminator
from finetune.pictures import shrunk, to_tensor
from mv3d.model.autoencoder import RgbaAutoencoder, encode_frames
from mv3d.model.checkpoints import ModelFacts, OrbitModel, load_model
from mv3d.model.coarse import CoarseNet
from mv3d.model.lora import add_lora, train_pose_columns
from mv3d.model.surgery import reconditioned
from mv3d.model.unet import OrbitUNet
from mv3d.model.weights import load_strict, load_weights
from mv3d.pack import Pack

_SCALING_FRAMES = 256


class TrainedNetworks(nn.Module):
    """What the diffusion stage trains, together; what is None stays as it is."""

    def __init__(
        self,
        unet: OrbitUNet,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        decoder: nn.Module | None = None,
        discriminator: PatchDiscriminator | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.image_encoder = image_encoder
        self.decoder = decoder
        """The autoencoder's own."""
        self.discriminator = discriminator
        """Of decoded frames, in training alone."""


@dataclass(frozen=True, eq=False)
class Trainee:
    """A model as its training begins."""

    model: OrbitModel
    networks: TrainedNetworks
    """Of the model, but for the discriminator."""
    base_facts: ModelFacts
    """The base's own; the model's, where it is new."""
    pose_base: Tensor | None = None
    """The pose columns before training, where a LoRA has to bring its own."""


def make_trainee(config: RunConfig, pack: Pack | None, device: torch.device | str = "cpu") -> Trainee:
    """Make the networks that a diffusion stage trains, and those beside them.

    Args:
        config: of the run.
        pack: of its orbits, for a new model.
        device: where everything goes.
    """
    if config.base is not None:
        return _based(config, torch.device(device))
    assert pack is not None
    return _new(config, pack, device)


# -------------------------------------------------------------------------------------------------
# A new model.


def make_autoencoder(config: AutoencoderStage) -> RgbaAutoencoder:
    """Make the untrained autoencoder; its scaling factor is measured once it is trained."""
    return RgbaAutoencoder(
        config.channels,
        config.latent_channels,
        upscale_factor=config.upscale_factor,
        decoder_sees_views=config.decoder_sees_views,
    )


def make_coarse_net(run: RunConfig) -> CoarseNet:
    """Make the coarse network as its training begins; what is frozen of it is in no checkpoint, and stays like this."""
    config = run.coarse
    assert config is not None
    torch.manual_seed(run.seed)  # initial weights only
    net = CoarseNet(config.network)
    backbone = net.picture_net.backbone
    if config.pretrained_backbone:
        load_imagenet_weights(backbone)
    if config.frozen_stages:
        if run.start_from is not None:
            start_coarse_net(net, run.start_from)
        for module in (backbone.stem, *backbone.stages[: config.frozen_stages]):
            module.requires_grad_(False)
    return net


def start_coarse_net(net: CoarseNet, model: Path) -> None:
    """Give it the weights of a model folder.

    Raises:
        Mv3dError: if there are none, or of another shape.
    """
    load_strict(net, load_weights(model / "coarse", torch.float32), str(model / "coarse"))


def make_unet(run: RunConfig) -> OrbitUNet:
    """Make the untrained video UNet of a new model at the config's widths."""
    assert run.autoencoder is not None
    config, latent = run.diffusion, run.autoencoder.latent_channels
    return OrbitUNet(
        sample_size=run.encoded_px // 8,
        in_channels=2 * latent,
        out_channels=latent,
        **_levels(config),
        addition_time_embed_dim=config.id_embed_dim,
        projection_class_embeddings_input_dim=config.id_embed_dim,
        cross_attention_dim=config.cross_attention_dim,
        num_frames=21,
        pose_embed_dim=config.pose_embed_dim if config.conditions.poses else 0,
        coarse_channels=latent,
        coarse_mean=True,
        input_last=config.conditions.input_last,
    )


def _levels(config: DiffusionStage) -> dict[str, Any]:
    """Sizes of a UNet, of which the deepest level has no attention, as in SVD."""
    levels = len(config.channels)
    return {
        "block_out_channels": config.channels,
        "num_attention_heads": config.heads,
        "layers_per_block": config.layers_per_block,
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * (levels - 1) + ("DownBlockSpatioTemporal",),
        "up_block_types": ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
    }


def _sampling(config: DiffusionStage) -> dict[str, Any]:
    """How a UNet of random weights is sampled once it is trained."""
    levels = {"sigma_min": config.sigma_min, "sigma_max": config.sigma_max, "num_steps": config.sampling_steps}
    return levels | {"guidance_low": 1.0, "guidance_high": config.guidance_high}


def make_image_encoder(config: DiffusionStage, picture_px: int) -> CLIPVisionModelWithProjection:
    """Make a vision transformer of CLIP's architecture small enough to learn beside the UNet."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        projection_dim=config.cross_attention_dim,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=picture_px,
        patch_size=16,
    )
    return CLIPVisionModelWithProjection(vision)


def _new(config: RunConfig, pack: Pack, device: torch.device | str) -> Trainee:
    assert config.autoencoder is not None
    stage = config.diffusion
    torch.manual_seed(config.seed)  # initial weights only
    vae = load_ema(config.run / "autoencoder", make_autoencoder(config.autoencoder))
    nn.Module.to(vae, device)  # the class annotates its own `to` wrongly
    coarse = load_ema(config.run / "coarse", make_coarse_net(config)).to(device)
    decoder = vae.decoder.requires_grad_(True) if stage.train_decoder else None
    unet, image_encoder = make_unet(config), make_image_encoder(stage, config.encoded_px)
    discriminator = PatchDiscriminator() if stage.discriminator_weight else None
    networks = TrainedNetworks(unet, image_encoder, decoder, discriminator).to(device)
    vae.register_to_config(scaling_factor=_measure_scaling(vae, pack, config))
    facts = ModelFacts(
        name=config.model_name,
        licence=config.licence,
        resolution_px=config.encoded_px,
        num_views=pack.frames.shape[1],
        added_time_ids=(stage.cond_aug,),
        guidance="triangle",
        **_sampling(stage),
    )
    return Trainee(OrbitModel(unet, vae, image_encoder, facts, coarse), networks, facts)


@torch.no_grad()
def _measure_scaling(vae: RgbaAutoencoder, pack: Pack, config: RunConfig) -> float:
    """What brings latents to unit variance, over a fixed choice of frames (Rombach et al. 2022, appendix G)."""
    orbits, views = pack.indices("train"), pack.frames.shape[1]
    chosen = draw(_SCALING_FRAMES, len(orbits) * views, config.seed, 0)
    frames = to_tensor(np.stack([pack.frames[orbits[k // views], k % views] for k in chosen]))
    frames = shrunk(frames, config.encoded_px)
    latents = torch.cat([encode_frames(vae, chunk.to(vae.device)) for chunk in frames.split(32)])
    return round(1 / latents.std().item(), 5)


# -------------------------------------------------------------------------------------------------
# What is made of a base.


def new_unet_config(known: Mapping[str, Any], wanted: DiffusionStage) -> dict[str, Any]:
    """The config of a base's UNet with the sizes that are wanted, without poses and coarse views."""
    return dict(known) | _levels(wanted) | {"pose_embed_dim": 0, "coarse_channels": 0, "coarse_mean": False}


def _based(config: RunConfig, device: torch.device) -> Trainee:
    assert config.base is not None
    stage = config.diffusion
    # Beside a LoRA less of it may go to the device than it is.
    base = load_model(config.base, device if stage.lora is None else "cpu")
    if config.init == "random":
        base = _with_new_unet(base, config, device)
    model = _adapted(base, config)
    unet = model.unet.requires_grad_(stage.lora is None)
    pose_base = None
    if stage.lora is not None:
        columns = unet.add_embedding.linear_1.weight[:, unet.config["projection_class_embeddings_input_dim"] :]
        if stage.distillation is None and columns.shape[1] > 0 and not bool(columns.any()):
            pose_base = columns.detach().clone().to(device)
        add_lora(unet, stage.lora.rank, stage.lora.alpha, stage.lora.targets, config.seed)
        if pose_base is not None:
            train_pose_columns(unet)
        store_base(unet, stage.lora.base_storage, device)
        nn.Module.to(unet, device)  # the class annotates its own `to` wrongly
        for network in (model.vae, model.image_encoder, model.coarse):
            if network is not None:
                nn.Module.to(network, device)
    return Trainee(model, TrainedNetworks(unet), base.facts, pose_base)


def _with_new_unet(base: OrbitModel, config: RunConfig, device: torch.device) -> OrbitModel:
    """The base with a UNet of random weights, which has no coarse views and is sampled without guidance."""
    known = {key: value for key, value in base.unet.config.items() if not key.startswith("_")}
    wanted = config.diffusion
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = OrbitUNet(**new_unet_config(known, wanted))
    torch.nn.Module.to(unet, device)  # the class annotates its own `to` wrongly
    facts = replace(base.facts, guidance="constant", **_sampling(wanted))
    return replace(base, unet=unet, coarse=None, facts=facts)


def _adapted(base: OrbitModel, config: RunConfig) -> OrbitModel:
    """The base with the config's conditions, untrained as these are, and with the facts to sample it by."""
    stage, unet = config.diffusion, base.unet
    assert config.num_views is not None
    wanted, distilled = stage.conditions, stage.distillation is not None
    if not distilled:
        unet = reconditioned(unet, poses=wanted.poses, cond_aug_only=wanted.cond_aug_only, input_last=wanted.input_last)
    turns = base.facts.turns if distilled else config.turns  # a student does what its teacher does
    facts = replace(base.facts, name=config.model_name, num_views=config.num_views, turns=turns)
    facts = replace(facts, **sampling_facts(base.facts, config))
    if config.resolution_px is not None:
        facts = replace(facts, resolution_px=config.resolution_px)
    if wanted.cond_aug_only and len(facts.added_time_ids) > 1:  # SV3D, section 3 and generative-models' sv3d_p.yaml
        facts = replace(facts, added_time_ids=(1e-5,), num_steps=50, guidance="triangle", guidance_high=2.5)
    return replace(base, unet=unet.train(), facts=facts)

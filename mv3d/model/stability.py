"""Whole models in Stability AI's own single files: SV3D_u, SV3D_p, and SVD as first published.

One safetensors file holds everything under long names: the UNet (``model.diffusion_model.``), the image encoder
(``conditioner.embedders.0.open_clip.model.visual.``), the autoencoder's encoder, which is part of the conditioner
(``conditioner.embedders.1.encoder.`` in SV3D, ``.3.`` in SVD), and its decoder (``first_stage_model.decoder.``: SVD's
mixes frames, SV3D's does not). Widths and kind are read off the shapes, so nothing has to be told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mv3d.errors import Mv3dError
from mv3d.model.autoencoder import Autoencoder
from mv3d.model.stability_keys import autoencoder_name, image_encoder_name, unet_name
from mv3d.model.surgery import from_stock
from mv3d.model.unet import OrbitUNet
from mv3d.model.weights import TensorReader, load_strict, make_empty, read_shapes, shortened

UNET = "model.diffusion_model."
IMAGE_ENCODER = "conditioner.embedders.0.open_clip.model."
DECODER = "first_stage_model.decoder."

SCALING_FACTOR = 0.18215
_ID_WIDTH = 256
_POSE_WIDTH = 512
_HEAD_WIDTH = 64
"""SVD's ``num_head_channels``: 320, 640, 1280, 1280 channels are 5, 10, 20, 20 heads."""
_CLIP_HEAD_WIDTH = 80


@dataclass(frozen=True)
class Kind:
    """What the width of the added vector tells: which of the published models a file holds."""

    name: str
    ids: int
    poses: bool
    encoder: str
    temporal_decoder: bool

    @property
    def is_sv3d(self) -> bool:
        """SV3D's two models carry one id and see their input view last."""
        return self.ids == 1


KINDS = {
    3 * _ID_WIDTH: Kind("SVD", 3, poses=False, encoder="conditioner.embedders.3.encoder.", temporal_decoder=True),
    _ID_WIDTH: Kind("SV3D_u", 1, poses=False, encoder="conditioner.embedders.1.encoder.", temporal_decoder=False),
    _ID_WIDTH + 2 * _POSE_WIDTH: Kind(
        "SV3D_p", 1, poses=True, encoder="conditioner.embedders.1.encoder.", temporal_decoder=False
    ),
}


@dataclass(frozen=True, eq=False)
class StabilityModel:
    """The networks of a file, in evaluation mode on the CPU."""

    kind: Kind
    unet: OrbitUNet
    vae: Autoencoder
    image_encoder: CLIPVisionModelWithProjection


def load_stability_file(path: Path, dtype: torch.dtype = torch.float32) -> StabilityModel:
    """Read one of Stability's single files; tensors that no network here needs are never read.

    Raises:
        Mv3dError: if the file is damaged, is none of `KINDS`, or lacks or exceeds what its networks hold (keys are
            listed).
    """
    return build_stability_model(read_shapes(path), TensorReader(path, dtype).read, str(path))


def build_stability_model(
    shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], Tensor], name: str
) -> StabilityModel:
    """Make the networks that ``shapes`` describe and fill them with what ``read`` gives for each key."""
    kind = _kind_of(shapes, name)
    unknown = [key for key in shapes if not key.startswith(_parts_of(kind))]
    if unknown:
        raise Mv3dError(f"{name} holds {len(unknown)} keys that {kind.name} does not have: {shortened(unknown)}")
    try:
        return StabilityModel(
            kind,
            _build_unet(shapes, read, kind, name),
            _build_vae(shapes, read, kind, name),
            _build_image_encoder(shapes, read, name),
        )
    except (IndexError, ValueError, RuntimeError) as error:
        if isinstance(error, Mv3dError):
            raise
        raise Mv3dError(
            f"{name} is no whole {kind.name}: a tensor has other dimensions than there ({error})"
        ) from error


def _kind_of(shapes: Mapping[str, Any], name: str) -> Kind:
    label = shapes.get(f"{UNET}label_emb.0.0.weight")
    if label is None or len(label) != 2 or label[1] not in KINDS:
        found = "no label_emb" if label is None else f"label_emb {label}"
        widths = ", ".join(f"{width} ({kind.name})" for width, kind in KINDS.items())
        raise Mv3dError(f"{name} holds no SVD or SV3D of Stability AI: {found}; known widths are {widths}")
    return KINDS[label[1]]


def _parts_of(kind: Kind) -> tuple[str, ...]:
    unread = (
        # The conditioner's copies of networks that it does not run: an image decoder, and open_clip's text side.
        f"{kind.encoder}decoder.",
        f"{kind.encoder}post_quant_conv.",
        *(f"{IMAGE_ENCODER}{part}" for part in ("token_embedding.", "positional_embedding", "ln_final.")),
        *(f"{IMAGE_ENCODER}{part}" for part in ("text_projection", "logit_scale")),
        # A second copy of SVD's encoder. SV3D's files have none.
        *(() if kind.is_sv3d else ("first_stage_model.encoder.",)),
    )
    read = (UNET, f"{IMAGE_ENCODER}visual.", f"{kind.encoder}encoder.", f"{kind.encoder}quant_conv.", DECODER)
    return read + unread


def _renamed(
    shapes: Mapping[str, Any], read: Callable[[str], Tensor], prefix: str, rename: Callable[[str], str | None]
) -> dict[str, Tensor]:
    """All tensors below ``prefix`` under their new names; one without a new name keeps its own, to be refused."""
    keys = [key for key in shapes if key.startswith(prefix)]
    return {rename(key.removeprefix(prefix)) or key: read(key) for key in keys}


def read_unet_config(path: Path) -> dict[str, Any]:
    """The config of a file's UNet without its weights, as `OrbitUNet` takes it.

    Raises:
        Mv3dError: if the file is damaged or none of `KINDS`.
    """
    shapes = read_shapes(path)
    kind = _kind_of(shapes, str(path))
    poses = _POSE_WIDTH if kind.poses else 0
    return _unet_config(shapes, kind, str(path)) | {"pose_embed_dim": poses, "input_last": kind.is_sv3d}


def _unet_config(shapes: Mapping[str, Any], kind: Kind, name: str) -> dict[str, Any]:
    channels, layers = _unet_channels(shapes, name)
    crossed = shapes.get(f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
    return {
        "in_channels": shapes[f"{UNET}input_blocks.0.0.weight"][1],
        "out_channels": shapes[f"{UNET}out.2.weight"][0],
        "block_out_channels": channels,
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal",) * (len(channels) - 1) + ("DownBlockSpatioTemporal",),
        "up_block_types": ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (len(channels) - 1),
        "layers_per_block": layers,
        "num_attention_heads": tuple(width // _HEAD_WIDTH for width in channels),
        "cross_attention_dim": crossed[1] if crossed else 1024,
        "addition_time_embed_dim": _ID_WIDTH,
        "projection_class_embeddings_input_dim": kind.ids * _ID_WIDTH,
        "num_frames": 21 if kind.is_sv3d else 25,
    }


def _build_unet(shapes: Mapping[str, Any], read: Callable[[str], Tensor], kind: Kind, name: str) -> OrbitUNet:
    config = _unet_config(shapes, kind, name)
    state = _renamed(shapes, read, UNET, lambda key: unet_name(key, config["layers_per_block"]))
    if not kind.is_sv3d:
        return from_stock(state, config).eval()
    config |= {"pose_embed_dim": _POSE_WIDTH if kind.poses else 0, "input_last": True}
    unet = make_empty(lambda config: OrbitUNet(**config), config, shapes, name)
    load_strict(unet, state, f"{name} ({UNET}*)")
    return unet.eval()


def _unet_channels(shapes: Mapping[str, Any], name: str) -> tuple[tuple[int, ...], int]:
    """Widths of the levels and residual blocks per level, from the places of the downsampling convolutions."""
    downs = sorted(
        int(k.split(".")[3]) for k in shapes if re.fullmatch(rf"{re.escape(UNET)}input_blocks\.\d+\.0\.op\.weight", k)
    )
    if not downs:
        raise Mv3dError(f"{name} lacks {UNET}input_blocks.*.0.op.weight, so its UNet has no levels")
    layers = downs[0] - 1
    firsts = [1, *(place + 1 for place in downs)]
    try:
        widths = tuple(shapes[f"{UNET}input_blocks.{first}.0.out_layers.3.weight"][0] for first in firsts)
    except KeyError as error:
        raise Mv3dError(f"{name} lacks {error.args[0]}") from error
    odd = [width for width in widths if width % _HEAD_WIDTH]
    if odd:
        raise Mv3dError(f"{name}: widths {odd} are no multiple of SVD's {_HEAD_WIDTH} channels a head")
    return widths, layers


def _build_vae(shapes: Mapping[str, Any], read: Callable[[str], Tensor], kind: Kind, name: str) -> Autoencoder:
    encoder = f"{kind.encoder}encoder."
    pattern = re.compile(rf"{re.escape(encoder)}down\.(\d+)\.block\.(\d+)\.conv1\.weight")
    blocks = [(int(m[1]), int(m[2]), shapes[m[0]][0]) for m in map(pattern.fullmatch, shapes) if m]
    if not blocks:
        raise Mv3dError(f"{name} lacks {encoder}*, where the autoencoder's encoder lies in {kind.name}")
    channels = tuple(dict((level, width) for level, _, width in sorted(blocks)).values())
    levels = len(channels)
    state = {
        **_with_prefix(
            "encoder.", _renamed(shapes, read, encoder, lambda k: autoencoder_name(k, levels, temporal=False))
        ),
        **_renamed(shapes, read, f"{kind.encoder}quant_conv.", lambda key: f"quant_conv.{key}"),
        **_with_prefix(
            "decoder.",
            _renamed(shapes, read, DECODER, lambda k: autoencoder_name(k, levels, temporal=kind.temporal_decoder)),
        ),
    }
    for key, value in state.items():  # the original's attention has 1x1 convolutions where diffusers has products
        if ".attentions." in key and value.ndim == 4:
            state[key] = value[:, :, 0, 0].contiguous()
    config: dict[str, Any] = {
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "layers_per_block": 1 + max(block for _, block, _ in blocks),
        "latent_channels": shapes.get(f"{DECODER}conv_in.weight", (0, 4))[1],
        "scaling_factor": SCALING_FACTOR,
    }
    cls: type[Autoencoder] = AutoencoderKLTemporalDecoder
    if not kind.temporal_decoder:
        config |= {"up_block_types": ("UpDecoderBlock2D",) * levels, "use_post_quant_conv": False}
        cls = AutoencoderKL
    vae = make_empty(lambda config: cls(**config), config, shapes, name)
    load_strict(vae, state, f"{name} ({encoder}* and {DECODER}*)")
    return vae.eval()


def _with_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key if key.startswith(("conditioner.", "first_stage_model.")) else prefix + key: v for key, v in state.items()
    }


def _build_image_encoder(
    shapes: Mapping[str, Any], read: Callable[[str], Tensor], name: str
) -> CLIPVisionModelWithProjection:
    visual = f"{IMAGE_ENCODER}visual."
    state = _renamed(shapes, read, visual, image_encoder_name)
    try:
        width, _, patch, _ = shapes[f"{visual}conv1.weight"]
        places = shapes[f"{visual}positional_embedding"][0]
        hidden = shapes[f"{visual}transformer.resblocks.0.mlp.c_fc.weight"][0]
        projection = shapes[f"{visual}proj"][1]
    except KeyError as error:
        raise Mv3dError(f"{name} lacks {error.args[0]}, a part of its image encoder") from error
    for key in [key for key in state if key.endswith(("in_proj_weight", "in_proj_bias"))]:
        stem, leaf = key.rsplit(".in_proj_", 1)
        for part, value in zip("qkv", state.pop(key).chunk(3), strict=True):
            state[f"{stem}.{part}_proj.{leaf}"] = value.clone()
    if "visual_projection.weight" in state:
        state["visual_projection.weight"] = state["visual_projection.weight"].T.contiguous()
    layers = {int(key.split(".")[3]) for key in state if key.startswith("vision_model.encoder.layers.")}
    config: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": hidden,
        "projection_dim": projection,
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // _CLIP_HEAD_WIDTH,
        "image_size": patch * round(max(places - 1, 0) ** 0.5),
        "patch_size": patch,
        "hidden_act": "gelu",
    }
    encoder = make_empty(lambda config: CLIPVisionModelWithProjection(CLIPVisionConfig(**config)), config, shapes, name)
    load_strict(encoder, state, f"{name} ({visual}*)")
    return encoder.eval()

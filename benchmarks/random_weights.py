"""SVD-xt's diffusers folder and SV3D_p's single file with random weights: names, shapes and types as published.

Activations stay about as large as they are in real ones, so nothing overflows; what is sampled is noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.mv3d.sgm import SMALL, stability_shapes

SVD, SV3D = "svd-xt", "sv3d_p.safetensors"
_POOL = 2**24

VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
}
CLIP: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
}
CLIP_OF_SVD: dict[str, Any] = {
    **CLIP,
    "projection_dim": 1024,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
}
TEXT = {"token_embedding.weight": (49408, 1024), "positional_embedding": (77, 1024)}
"""Of SV3D's file, which no network here reads."""


def write_models(folder: Path, names: Sequence[str] = (SVD, SV3D), *, narrow: bool = False) -> None:
    """Write models into a folder, the whole ones or, if ``narrow``, the same files at a thousandth of the size."""
    if SVD in names:
        write_svd(folder / SVD, narrow=narrow)
    if SV3D in names:
        write_sv3d(folder / SV3D, narrow=narrow)


def write_sv3d(path: Path, *, narrow: bool) -> None:
    """Write SV3D_p's file, in float32 as it is published."""
    shapes = stability_shapes("SV3D_p", **SMALL) if narrow else stability_shapes("SV3D_p")
    if not narrow:
        shapes |= {f"conditioner.embedders.0.open_clip.model.{key}": shape for key, shape in TEXT.items()}
    write_weights(path, shapes, torch.float32)


def write_svd(folder: Path, *, narrow: bool) -> None:
    """Write SVD-xt's diffusers folder."""
    unet: dict[str, Any] = {"num_attention_heads": (5, 10, 20, 20), "num_frames": 25}
    vae: dict[str, Any] = VAE
    clip: dict[str, Any] = CLIP_OF_SVD
    if narrow:
        unet |= {"block_out_channels": (32, 64, 64, 64), "num_attention_heads": (1, 2, 2, 2), "cross_attention_dim": 32}
        vae = VAE | {"block_out_channels": (32,) * 4, "layers_per_block": 1}
        clip = CLIP_OF_SVD | {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "projection_dim": 32,
        }
    with torch.device("meta"):
        networks: dict[str, Any] = {
            "unet": UNetSpatioTemporalConditionModel(**unet),
            "vae": AutoencoderKLTemporalDecoder(**vae),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**clip)),
        }
    for name, network in networks.items():
        stem = "model" if name == "image_encoder" else "diffusion_pytorch_model"
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        write_weights(folder / name / f"{stem}.fp16.safetensors", shapes, torch.float16)
        text = network.config.to_json_string() if name == "image_encoder" else network.to_json_string()
        (folder / name / "config.json").write_text(text)
    EulerDiscreteScheduler(sigma_min=0.002, sigma_max=700.0).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}\n')


def write_weights(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    """Write a safetensors file of random weights tensor by tensor, which the library would want all at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    empty = torch.empty((), dtype=dtype)
    save_file({"x": empty}, path)  # for the type's name in the format
    kind = json.loads(path.read_bytes()[8:].split(b"}")[0] + b"}}")["x"]["dtype"]
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + math.prod(shape) * empty.element_size()
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in random_weights(shapes):
            file.write(value.to(dtype).numpy().tobytes())


def random_weights(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Tensor]:
    """Weights that keep activations about as large as they are: normal ones for products, 1 and 0 for norms."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(_POOL, generator=generator)
    for key, shape in shapes.items():
        if len(shape) < 2:
            yield torch.full(shape, 0.0 if key.endswith("bias") else 1.0)
            continue
        count = math.prod(shape)
        start = int(torch.randint(max(_POOL - count, 0) + 1, (), generator=generator))
        values = pool[start : start + count] if count <= _POOL else pool.repeat(count // _POOL + 1)[:count]
        yield values.view(shape) * (count / shape[0]) ** -0.5

"""The smallest networks of SVD's architecture, for tests that need one and not its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import CLIPVisionConfig

TINY_UNET: dict[str, Any] = {
    "block_out_channels": (32, 32),
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "num_attention_heads": (1, 1),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
}


def tiny_vision_config() -> CLIPVisionConfig:
    """CLIP's vision transformer with one layer, for pictures of 32 px."""
    return CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )


def make_rgba_vae(**config: Any):
    """An autoencoder of straight alpha with two levels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        mid_block_add_attention=False,
        **config,
    )


def make_coarse_net():
    """A coarse network for pictures of 32 px, but for its backbone, of which there is one size."""
    from mv3d.model.coarse import CoarseNet
    from mv3d.model.coarse_config import CoarseConfig

    widths = (8, 8, 8, 16)
    return CoarseNet(
        CoarseConfig(
            picture_px=32,
            backbone_px=32,
            picture_channels=widths,
            fine_channels=8,
            rays_px=16,
            num_bins=16,
            image_channels=widths,
            grid_size=8,
            grid_channels=widths,
        )
    )


def make_svd(folder: Path) -> Path:
    """Stock SVD as it is on the hub, but tiny: 32 px, latents of 4 px, no pose columns, a licence beside it."""
    import torch
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionModelWithProjection

    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel(**TINY_UNET)
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=1
    )
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    CLIPVisionModelWithProjection(tiny_vision_config()).save_pretrained(folder / "image_encoder")
    EulerDiscreteScheduler(sigma_min=0.002, sigma_max=700.0).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    (folder / "LICENSE.md").write_text("Non-commercial.")
    return folder


def blocky_picture(blocks: int, size_px: int = 32) -> np.ndarray:
    """A cut-out (size, size, 4) of blocks x blocks random colours, clear at the top."""
    picture = np.random.default_rng(0).random((blocks, blocks, 4))
    picture = picture.repeat(size_px // blocks, 0).repeat(size_px // blocks, 1).astype(np.float32)
    picture[..., 3] = 1
    picture[:6, :, 3] = 0
    return picture

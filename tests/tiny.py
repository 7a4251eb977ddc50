"""The smallest networks of SVD's architecture, for tests that need one and not its size."""

from __future__ import annotations

from typing import Any

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

"""Wan 2.2 TI2V-5B as it is on the hub, but tiny: the layout, the kinds of its parts, and random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TINY_TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 8,
    "out_channels": 8,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
}
TINY_VAE: dict[str, Any] = {
    "base_dim": 4,
    "decoder_base_dim": 4,
    "z_dim": 8,
    "num_res_blocks": 1,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.1 * k for k in range(8)],
    "latents_std": [0.5 + 0.1 * k for k in range(8)],
}
SIZE_PX = 32


def make_wan(folder: Path, *, shard_size: str = "20KB") -> Path:
    """The folder as diffusers saves it, the transformer in shards, a model card beside it; a patch is 32 px wide."""
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    transformer, vae = WanTransformer3DModel(**TINY_TRANSFORMER), AutoencoderKLWan(**TINY_VAE)
    with torch.no_grad():
        transformer.proj_out.weight.mul_(4)  # or its estimates would hardly differ from nothing
    transformer.save_pretrained(folder / "transformer", max_shard_size=shard_size)
    vae.save_pretrained(folder / "vae")
    text = UMT5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    make_tokenizer(folder / "tokenizer")
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    scheduler.save_pretrained(folder / "scheduler")
    index = {"_class_name": "WanPipeline", "_diffusers_version": "0.35.0.dev0", "boundary_ratio": None}
    index |= {"expand_timesteps": True, "transformer_2": [None, None]}
    index |= {
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
    }
    index |= {"tokenizer": ["transformers", "T5TokenizerFast"], "vae": ["diffusers", "AutoencoderKLWan"]}
    index |= {"transformer": ["diffusers", "WanTransformer3DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def make_tokenizer(folder: Path) -> None:
    """T5's, whose pieces are letters."""
    from transformers import T5TokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz."]
    scores = [(piece, -float(k > 2)) for k, piece in enumerate(pieces)]
    T5TokenizerFast(vocab=scores, extra_ids=0).save_pretrained(folder)

"""Text-to-image models of diffusers' layout, tiny and of random weights: Stable Diffusion's, SDXL's and SD3's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

_WIDTH = 16
_LETTERS = "abcdefghijklmnopqrstuvwxyz,."


def make_sd(folder: Path, variant: str | None = None) -> Path:
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config()),
        tokenizer=_tokenizer(folder.parent),
        unet=_unet(cross_attention_dim=_WIDTH),
        scheduler=EulerDiscreteScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, variant=variant)
    return folder


def make_sdxl(folder: Path) -> Path:
    torch.manual_seed(0)
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(_text_config()),
        tokenizer=_tokenizer(folder.parent),
        tokenizer_2=_tokenizer(folder.parent),
        unet=_unet(
            cross_attention_dim=2 * _WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
        ),
        scheduler=EulerDiscreteScheduler(steps_offset=1),
    )
    pipeline.save_pretrained(folder)
    return folder


def make_sd3(folder: Path) -> Path:
    """With all three text encoders, as it is published."""
    torch.manual_seed(0)
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=3 * _WIDTH,
            caption_projection_dim=_WIDTH,
            pooled_projection_dim=2 * _WIDTH,
            pos_embed_max_size=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=CLIPTextModelWithProjection(_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(_text_config()),
        text_encoder_3=T5EncoderModel(
            T5Config(vocab_size=40, d_model=3 * _WIDTH, d_kv=8, d_ff=_WIDTH, num_layers=1, num_heads=2)
        ),
        tokenizer=_tokenizer(folder.parent),
        tokenizer_2=_tokenizer(folder.parent),
        tokenizer_3=T5Tokenizer(
            vocab=[(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")] + [(letter, -1.0) for letter in _LETTERS],
            extra_ids=0,
        ),
    )
    pipeline.save_pretrained(folder)
    return folder


def _vae(**config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        mid_block_add_attention=False,
        **config,
    )


def _unet(**config: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        **config,
    )


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=300,
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH,
        projection_dim=_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=257,
    )


def _tokenizer(place: Path) -> CLIPTokenizer:
    """Every letter is a word of its own."""
    vocabulary = {letter: k for k, letter in enumerate(_LETTERS)}
    vocabulary |= {f"{letter}</w>": len(_LETTERS) + k for k, letter in enumerate(_LETTERS)}
    vocabulary |= {"<|startoftext|>": 256, "<|endoftext|>": 257}
    folder = place / "letters"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)

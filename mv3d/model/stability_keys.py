"""The names of Stability AI's own checkpoints, translated to those of diffusers and transformers.

Every function takes one name within its part of the file and returns the other name, or None for a name that the
part does not have. The original names are those of ``sgm`` (generative-models: ``VideoUNet``, ``Encoder``,
``Decoder``, ``VideoDecoder``) and of open_clip's vision transformer.
"""

from __future__ import annotations

import re

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_AUTOENCODER_ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_CLIP = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "proj": "visual_projection.weight",
}
_CLIP_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def unet_name(name: str, layers_per_block: int) -> str | None:
    """Translate a name of ``VideoUNet``, e.g. ``input_blocks.1.1.time_stack.0.attn1.to_q.weight``."""
    stem, _, leaf = name.rpartition(".")
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{leaf}"
    if found := re.fullmatch(r"input_blocks\.(\d+)\.(\d)\.(.+)", name):
        level, layer = divmod(int(found[1]) - 1, layers_per_block + 1)
        if found[2] == "0" and found[3].startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{leaf}"
        return _block(f"down_blocks.{level}", layer, found[2], found[3])
    if found := re.fullmatch(r"middle_block\.(\d)\.(.+)", name):
        return _block("mid_block", int(found[1]) // 2, "1" if found[1] == "1" else "0", found[2])
    if found := re.fullmatch(r"output_blocks\.(\d+)\.(\d)\.(.+)", name):
        level, layer = divmod(int(found[1]), layers_per_block + 1)
        if found[2] != "0" and found[3].startswith("conv."):  # behind the attention, or in its place
            return f"up_blocks.{level}.upsamplers.0.conv.{leaf}"
        return _block(f"up_blocks.{level}", layer, found[2], found[3])
    return None


def _block(block: str, layer: int, part: str, rest: str) -> str | None:
    if part == "1":
        rest = re.sub(r"^time_stack\b", "temporal_transformer_blocks", rest)
        rest = re.sub(r"^time_pos_embed\.([02])", lambda m: f"time_pos_embed.linear_{int(m[1]) // 2 + 1}", rest)
        return f"{block}.attentions.{layer}.{rest}"
    if rest == "time_mixer.mix_factor":
        return f"{block}.resnets.{layer}.{rest}"
    temporal = rest.startswith("time_stack.")
    stem, _, leaf = rest.removeprefix("time_stack.").rpartition(".")
    if stem not in _RESNET:
        return None
    return f"{block}.resnets.{layer}.{'temporal' if temporal else 'spatial'}_res_block.{_RESNET[stem]}.{leaf}"


def stability_unet_name(name: str, layers_per_block: int) -> str | None:
    """The other way round: a name of diffusers' UNet to that of ``VideoUNet``; None for one that SVD has not."""
    stem, _, leaf = name.rpartition(".")
    ends = {new: old for old, new in _UNET_ENDS.items()}
    if stem in ends:
        return f"{ends[stem]}.{leaf}"
    if found := re.fullmatch(r"(down|up)_blocks\.(\d)\.(down|up)samplers\.0\.conv", stem):
        if found[1] == "down":
            return f"input_blocks.{(int(found[2]) + 1) * (layers_per_block + 1)}.0.op.{leaf}"
        place = (int(found[2]) + 1) * (layers_per_block + 1) - 1
        return f"output_blocks.{place}.{1 if found[2] == '0' else 2}.conv.{leaf}"
    found = re.fullmatch(r"(down_blocks\.\d|mid_block|up_blocks\.\d)\.(resnets|attentions)\.(\d)\.(.+)", name)
    if not found:
        return None
    (block, _, level), layer, is_resnet = found[1].partition("."), int(found[3]), found[2] == "resnets"
    part = int(not is_resnet)
    if layer >= {"down_blocks": layers_per_block, "mid_block": 1 + is_resnet}.get(block, layers_per_block + 1):
        return None
    rest = _stability_resnet(found[4]) if is_resnet else _stability_attention(found[4])
    if rest is None:
        return None
    if block == "mid_block":
        return f"middle_block.{2 * layer + part}.{rest}"
    place = int(level) * (layers_per_block + 1) + layer
    return (
        f"input_blocks.{place + 1}.{part}.{rest}" if block == "down_blocks" else f"output_blocks.{place}.{part}.{rest}"
    )


def _stability_resnet(rest: str) -> str | None:
    if rest == "time_mixer.mix_factor":
        return rest
    block, _, inner = rest.partition(".")
    stem, _, leaf = inner.rpartition(".")
    old = next((old for old, new in _RESNET.items() if new == stem), None)
    if old is None or block not in ("spatial_res_block", "temporal_res_block"):
        return None
    return f"{'time_stack.' if block == 'temporal_res_block' else ''}{old}.{leaf}"


def _stability_attention(rest: str) -> str:
    rest = re.sub(r"^temporal_transformer_blocks\b", "time_stack", rest)
    return re.sub(r"^time_pos_embed\.linear_([12])", lambda m: f"time_pos_embed.{2 * int(m[1]) - 2}", rest)


def autoencoder_name(name: str, levels: int, *, temporal: bool) -> str | None:
    """Translate a name of ``Encoder`` or ``Decoder``; of ``VideoDecoder``, whose blocks mix frames, if ``temporal``.

    The original counts a decoder's levels from the picture, diffusers from the latents.
    """
    stem, _, leaf = name.rpartition(".")
    if stem in _AUTOENCODER_ENDS:
        return f"{_AUTOENCODER_ENDS[stem]}.{leaf}"
    if stem == "conv_out.time_mix_conv":
        return f"time_conv_out.{leaf}"
    if found := re.fullmatch(r"mid\.block_([12])\.(.+)", name):
        return _autoencoder_block(f"mid_block.resnets.{int(found[1]) - 1}", found[2], temporal=temporal)
    if found := re.fullmatch(r"mid\.attn_1\.(\w+)\.(\w+)", name):
        return f"mid_block.attentions.0.{_ATTENTION[found[1]]}.{found[2]}" if found[1] in _ATTENTION else None
    if found := re.fullmatch(r"(down|up)\.(\d+)\.(.+)", name):
        way, level, rest = found[1], int(found[2]), found[3]
        block = f"{way}_blocks.{level if way == 'down' else levels - 1 - level}"
        if rest.startswith(f"{way}sample.conv."):
            return f"{block}.{way}samplers.0.conv.{leaf}"
        if found := re.fullmatch(r"block\.(\d+)\.(.+)", rest):
            return _autoencoder_block(f"{block}.resnets.{found[1]}", found[2], temporal=temporal)
    return None


def _autoencoder_block(block: str, rest: str, *, temporal: bool) -> str | None:
    if not temporal:
        return f"{block}.{rest.replace('nin_shortcut', 'conv_shortcut')}"
    if rest == "mix_factor":
        return f"{block}.time_mixer.mix_factor"
    if not rest.startswith("time_stack."):
        return f"{block}.spatial_res_block.{rest.replace('nin_shortcut', 'conv_shortcut')}"
    stem, _, leaf = rest.removeprefix("time_stack.").rpartition(".")
    return f"{block}.temporal_res_block.{_RESNET[stem]}.{leaf}" if stem in _RESNET else None


def image_encoder_name(name: str) -> str | None:
    """Translate a name of open_clip's ``visual``; joint projections (``attn.in_proj_weight``) keep their end."""
    if name in _CLIP:
        return _CLIP[name]
    stem, _, leaf = name.rpartition(".")
    for old, new in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):  # transformers' spelling
        if stem == old:
            return f"vision_model.{new}.{leaf}"
    if found := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name):
        layer, (part, _, leaf) = f"vision_model.encoder.layers.{found[1]}", found[2].rpartition(".")
        if found[2] in ("attn.in_proj_weight", "attn.in_proj_bias"):
            return f"{layer}.self_attn.{leaf}"
        return f"{layer}.{_CLIP_LAYERS[part]}.{leaf}" if part in _CLIP_LAYERS else None
    return None

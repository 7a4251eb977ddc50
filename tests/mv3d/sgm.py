"""The names and shapes in Stability AI's own files, built up as sgm's and open_clip's modules build them."""

from __future__ import annotations

from collections.abc import Iterator

Shapes = dict[str, tuple[int, ...]]

LABELS = {"SVD": 768, "SV3D_u": 256, "SV3D_p": 1280}
SMALL = {
    "channels": (64, 128),
    "context": 32,
    "vae": (32, 64),
    "vae_layers": 2,
    "clip": (80, 2, 96, 32, 16, 2),
    "layers": 1,
}


def stability_shapes(
    kind: str,
    *,
    channels: tuple[int, ...] = (320, 640, 1280, 1280),
    layers: int = 2,
    context: int = 1024,
    vae: tuple[int, ...] = (128, 256, 512, 512),
    vae_layers: int = 2,
    clip: tuple[int, ...] = (1280, 32, 5120, 1024, 14, 16),
) -> Shapes:
    """All tensors of a file; ``clip`` is width, layers, hidden width, projection, patch size, patches along a side."""
    encoder = f"conditioner.embedders.{3 if kind == 'SVD' else 1}.encoder"
    parts = {
        "model.diffusion_model": video_unet(LABELS[kind], channels, layers, context),
        "conditioner.embedders.0.open_clip.model.visual": vision_transformer(*clip),
        "conditioner.embedders.0.open_clip.model": {
            "token_embedding.weight": (50, clip[3]),
            "positional_embedding": (7, clip[3]),
            "ln_final.weight": (clip[3],),
            "ln_final.bias": (clip[3],),
            "text_projection": (clip[3], clip[3]),
            "logit_scale": (),
        },
        f"{encoder}.encoder": vae_encoder(vae, vae_layers),
        f"{encoder}.quant_conv": {"weight": (8, 8, 1, 1), "bias": (8,)},
        f"{encoder}.decoder": vae_decoder(vae, vae_layers, temporal=False),
        f"{encoder}.post_quant_conv": {"weight": (4, 4, 1, 1), "bias": (4,)},
        "first_stage_model.decoder": vae_decoder(vae, vae_layers, temporal=kind == "SVD"),
    }
    if kind == "SVD":
        parts["first_stage_model.encoder"] = vae_encoder(vae, vae_layers)
    return {f"{part}.{key}": shape for part, shapes in parts.items() for key, shape in shapes.items()}


def video_unet(label: int, channels: tuple[int, ...], layers: int, context: int) -> Shapes:
    """``VideoUNet`` with attention on all levels but the last."""
    base, time = channels[0], 4 * channels[0]
    blocks: list[tuple[str, Shapes]] = [
        ("time_embed.0", _linear(base, time)),
        ("time_embed.2", _linear(time, time)),
        ("label_emb.0.0", _linear(label, time)),
        ("label_emb.0.2", _linear(time, time)),
        ("input_blocks.0.0", _conv(8, base)),
        ("out.0", _norm(base)),
        ("out.2", _conv(base, 4)),
    ]
    last, place, width, skips = len(channels) - 1, 1, base, [base]
    for level, out in enumerate(channels):
        for _ in range(layers):
            blocks.append((f"input_blocks.{place}.0", _video_res_block(width, out, time)))
            if level != last:
                blocks.append((f"input_blocks.{place}.1", _video_transformer(out, context)))
            width, place = out, place + 1
            skips.append(out)
        if level != last:
            blocks.append((f"input_blocks.{place}.0.op", _conv(width, width)))
            place += 1
            skips.append(width)
    blocks += [
        ("middle_block.0", _video_res_block(width, width, time)),
        ("middle_block.1", _video_transformer(width, context)),
        ("middle_block.2", _video_res_block(width, width, time)),
    ]
    place = 0
    for level, out in reversed(list(enumerate(channels))):
        for k in range(layers + 1):
            blocks.append((f"output_blocks.{place}.0", _video_res_block(width + skips.pop(), out, time)))
            part, width = 1, out
            if level != last:
                blocks.append((f"output_blocks.{place}.1", _video_transformer(out, context)))
                part = 2
            if level and k == layers:
                blocks.append((f"output_blocks.{place}.{part}.conv", _conv(out, out)))
            place += 1
    return dict(_joined(blocks))


def vae_encoder(channels: tuple[int, ...], layers: int) -> Shapes:
    """``Encoder`` with ``double_z``."""
    blocks = [("conv_in", _conv(3, channels[0]))]
    width = channels[0]
    for level, out in enumerate(channels):
        for k in range(layers):
            blocks.append((f"down.{level}.block.{k}", _res_block(width, out)))
            width = out
        if level != len(channels) - 1:
            blocks.append((f"down.{level}.downsample.conv", _conv(width, width)))
    blocks += [*_middle(width, temporal=False), ("norm_out", _norm(width)), ("conv_out", _conv(width, 8))]
    return dict(_joined(blocks))


def vae_decoder(channels: tuple[int, ...], layers: int, *, temporal: bool) -> Shapes:
    """``Decoder``, or ``VideoDecoder`` if ``temporal``."""
    width = channels[-1]
    blocks = [("conv_in", _conv(4, width)), *_middle(width, temporal=temporal)]
    for level, out in reversed(list(enumerate(channels))):
        for k in range(layers + 1):
            blocks.append((f"up.{level}.block.{k}", _res_block(width, out, temporal=temporal)))
            width = out
        if level:
            blocks.append((f"up.{level}.upsample.conv", _conv(width, width)))
    blocks += [("norm_out", _norm(width)), ("conv_out", _conv(width, 3))]
    if temporal:
        blocks.append(("conv_out.time_mix_conv", _conv(3, 3, (3, 1, 1))))
    return dict(_joined(blocks))


def vision_transformer(width: int, layers: int, hidden: int, projection: int, patch: int, side: int) -> Shapes:
    """open_clip's ``VisionTransformer``."""
    blocks = [("ln_pre", _norm(width)), ("ln_post", _norm(width))]
    for k in range(layers):
        name = f"transformer.resblocks.{k}"
        blocks += [
            (f"{name}.ln_1", _norm(width)),
            (f"{name}.ln_2", _norm(width)),
            (f"{name}.attn", {"in_proj_weight": (3 * width, width), "in_proj_bias": (3 * width,)}),
            (f"{name}.attn.out_proj", _linear(width, width)),
            (f"{name}.mlp.c_fc", _linear(width, hidden)),
            (f"{name}.mlp.c_proj", _linear(hidden, width)),
        ]
    ends = {
        "class_embedding": (width,),
        "positional_embedding": (side**2 + 1, width),
        "proj": (width, projection),
        "conv1.weight": (width, 3, patch, patch),
    }
    return ends | dict(_joined(blocks))


def _joined(blocks: list[tuple[str, Shapes]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    return ((f"{name}.{key}", shape) for name, shapes in blocks for key, shape in shapes.items())


def _linear(width: int, out: int, *, bias: bool = True) -> Shapes:
    return {"weight": (out, width)} | ({"bias": (out,)} if bias else {})


def _norm(width: int) -> Shapes:
    return {"weight": (width,), "bias": (width,)}


def _conv(width: int, out: int, kernel: tuple[int, ...] = (3, 3)) -> Shapes:
    return {"weight": (out, width, *kernel), "bias": (out,)}


def _open_res_block(width: int, out: int, time: int, kernel: tuple[int, ...]) -> list[tuple[str, Shapes]]:
    blocks = [
        ("in_layers.0", _norm(width)),
        ("in_layers.2", _conv(width, out, kernel)),
        ("out_layers.0", _norm(out)),
        ("out_layers.3", _conv(out, out, kernel)),
    ]
    if time:
        blocks.append(("emb_layers.1", _linear(time, out)))
    if width != out:
        blocks.append(("skip_connection", _conv(width, out, (1, 1))))
    return blocks


def _video_res_block(width: int, out: int, time: int) -> Shapes:
    stack = [(f"time_stack.{name}", shapes) for name, shapes in _open_res_block(out, out, time, (3, 1, 1))]
    blocks = [*_open_res_block(width, out, time, (3, 3)), *stack, ("time_mixer", {"mix_factor": (1,)})]
    return dict(_joined(blocks))


def _video_transformer(width: int, context: int) -> Shapes:
    def attention(name: str, keys: int) -> list[tuple[str, Shapes]]:
        return [
            (f"{name}.to_q", _linear(width, width, bias=False)),
            (f"{name}.to_k", _linear(keys, width, bias=False)),
            (f"{name}.to_v", _linear(keys, width, bias=False)),
            (f"{name}.to_out.0", _linear(width, width)),
        ]

    def feed_forward(name: str) -> list[tuple[str, Shapes]]:
        return [(f"{name}.net.0.proj", _linear(width, 8 * width)), (f"{name}.net.2", _linear(4 * width, width))]

    blocks = [
        ("norm", _norm(width)),
        ("proj_in", _linear(width, width)),
        ("proj_out", _linear(width, width)),
        ("time_pos_embed.0", _linear(width, 4 * width)),
        ("time_pos_embed.2", _linear(4 * width, width)),
        ("time_mixer", {"mix_factor": (1,)}),
    ]
    for name in ("transformer_blocks.0", "time_stack.0"):
        inner = [*attention("attn1", width), *attention("attn2", context), *feed_forward("ff")]
        inner += [(norm, _norm(width)) for norm in ("norm1", "norm2", "norm3")]
        if name == "time_stack.0":
            inner += [("norm_in", _norm(width)), *feed_forward("ff_in")]
        blocks += [(f"{name}.{part}", shapes) for part, shapes in inner]
    return dict(_joined(blocks))


def _res_block(width: int, out: int, *, temporal: bool = False) -> Shapes:
    blocks = [("norm1", _norm(width)), ("conv1", _conv(width, out)), ("norm2", _norm(out)), ("conv2", _conv(out, out))]
    if width != out:
        blocks.append(("nin_shortcut", _conv(width, out, (1, 1))))
    shapes = dict(_joined(blocks))
    if temporal:
        shapes |= {f"time_stack.{key}": shape for key, shape in _joined(_open_res_block(out, out, 0, (3, 1, 1)))}
        shapes["mix_factor"] = (1,)
    return shapes


def _middle(width: int, *, temporal: bool) -> list[tuple[str, Shapes]]:
    attention = [("norm", _norm(width)), *((name, _conv(width, width, (1, 1))) for name in ("q", "k", "v", "proj_out"))]
    return [
        ("mid.block_1", _res_block(width, width, temporal=temporal)),
        ("mid.attn_1", dict(_joined(attention))),
        ("mid.block_2", _res_block(width, width, temporal=temporal)),
    ]

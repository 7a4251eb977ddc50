"""Stability AI's single files: every name, the surgery, the order of views, and what is refused."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import save_file
from torch import Tensor, nn

from mv3d.cameras import static_orbit
from mv3d.errors import Mv3dError
from mv3d.model.checkpoints import load_model, save_model
from mv3d.model.conditioning import Conditions, poses_of
from mv3d.model.denoiser import Denoiser
from mv3d.model.stability import build_stability_model

_spec = importlib.util.spec_from_file_location("sgm_names", Path(__file__).parent / "sgm.py")
sgm = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sgm)

# Of the sorted names in svd.safetensors that DiffSynth-Studio 1.1.7 (Apache-2.0) lists in diffsynth/models/svd_*.py.
PUBLISHED_NAMES_SHA256 = "c8814b942dcc89b25b2f2c9f0896304b1a74bdc75f676b25aa8eb0be1d60c0c6"
PUBLISHED_PARTS = (
    "model.",
    "conditioner.embedders.0.open_clip.model.visual.",
    "conditioner.embedders.3.encoder.encoder.",
    "conditioner.embedders.3.encoder.quant_conv.",
    "first_stage_model.decoder.",
)


def make_state(kind: str, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = sgm.stability_shapes(kind, **sgm.SMALL)
    return {key: 0.1 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


@pytest.fixture(scope="module", params=["SVD", "SV3D_u", "SV3D_p"])
def written(request, tmp_path_factory) -> tuple[str, dict[str, Tensor], Path]:
    state = make_state(request.param)
    path = tmp_path_factory.mktemp("stability") / f"{request.param.lower()}.safetensors"
    save_file(state, path)
    (path.parent / "LICENSE").write_text("Terms.")
    return request.param, state, path


def test_the_names_are_the_published_ones():
    names = sorted(name for name in sgm.stability_shapes("SVD") if name.startswith(PUBLISHED_PARTS))
    assert len(names) == 2194
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == PUBLISHED_NAMES_SHA256


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "ids", "pose"), [("SVD", 768, 0), ("SV3D_u", 256, 0), ("SV3D_p", 256, 512)])
def test_at_full_size_every_tensor_finds_its_place(kind, ids, pose):
    shapes = sgm.stability_shapes(kind)
    model = build_stability_model(shapes, lambda key: torch.empty(shapes[key], device="meta"), "a full file")
    unet = model.unet
    assert model.kind.name == kind
    assert unet.config["num_attention_heads"] == (5, 10, 20, 20)
    assert [b.num_attention_heads for b in unet.down_blocks[:3]] == [5, 10, 20]
    # The heads where they count: in the attention layers themselves.
    for block, heads in ((unet.down_blocks[1], 10), (unet.mid_block, 20), (unet.up_blocks[3], 5)):
        layers = [m for m in block.attentions.modules() if isinstance(m, Attention)]
        assert layers
        assert {layer.heads for layer in layers} == {heads}
    assert unet.config["projection_class_embeddings_input_dim"] == ids
    columns = sgm.LABELS[kind] if kind != "SVD" else 768 + 1024  # stock SVD gets its zero pose columns
    assert tuple(unet.add_embedding.linear_1.weight.shape) == (1280, columns)
    assert unet.config["input_last"] == (kind != "SVD")
    assert (unet.config["pose_embed_dim"] == pose) or kind == "SVD"
    unet_size = sum(math.prod(shape) for key, shape in shapes.items() if key.startswith("model."))
    assert unet.num_parameters() - unet_size == (1024 * 1280 if kind == "SVD" else 0)
    assert model.image_encoder.config.num_attention_heads == 16
    assert model.image_encoder.config.image_size == 224
    assert model.vae.config["block_out_channels"] == (128, 256, 512, 512)


def test_every_value_of_a_file_is_used_where_it_belongs(written):
    kind, state, path = written
    model = load_model(path)
    unet = {key: value for key, value in model.unet.state_dict().items() if key != "add_embedding.linear_1.weight"}
    read = {
        key: value for key, value in state.items() if key.startswith("model.") and "label_emb.0.0.weight" not in key
    }
    fingerprint = sorted((tuple(v.shape), v.double().sum().item()) for v in unet.values())
    assert fingerprint == sorted((tuple(v.shape), v.double().sum().item()) for v in read.values())

    def original(name: str) -> Tensor:
        return state[f"model.diffusion_model.{name}"]

    named = model.unet.state_dict()
    pairs = {
        "down_blocks.0.resnets.0.temporal_res_block.conv1.weight": "input_blocks.1.0.time_stack.in_layers.2.weight",
        "down_blocks.0.attentions.0.temporal_transformer_blocks.0.ff_in.net.2.bias": (
            "input_blocks.1.1.time_stack.0.ff_in.net.2.bias"
        ),
        "down_blocks.0.attentions.0.time_pos_embed.linear_2.weight": "input_blocks.1.1.time_pos_embed.2.weight",
        "down_blocks.0.downsamplers.0.conv.weight": "input_blocks.2.0.op.weight",
        "down_blocks.1.resnets.0.spatial_res_block.conv_shortcut.weight": "input_blocks.3.0.skip_connection.weight",
        "mid_block.resnets.1.time_mixer.mix_factor": "middle_block.2.time_mixer.mix_factor",
        "mid_block.attentions.0.time_mixer.mix_factor": "middle_block.1.time_mixer.mix_factor",
        "up_blocks.0.upsamplers.0.conv.weight": "output_blocks.1.1.conv.weight",
        "up_blocks.1.resnets.1.spatial_res_block.time_emb_proj.weight": "output_blocks.3.0.emb_layers.1.weight",
        "conv_norm_out.weight": "out.0.weight",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(named[ours], original(theirs)), ours
    label, ours = original("label_emb.0.0.weight"), named["add_embedding.linear_1.weight"]
    assert torch.equal(ours[:, : label.shape[1]], label)
    assert not ours[:, label.shape[1] :].any()


def test_the_autoencoder_is_read_where_it_lies(written):
    kind, state, path = written
    vae = load_model(path).vae.state_dict()
    encoder = f"conditioner.embedders.{3 if kind == 'SVD' else 1}.encoder"
    assert torch.equal(vae["encoder.conv_in.weight"], state[f"{encoder}.encoder.conv_in.weight"])
    assert torch.equal(vae["quant_conv.bias"], state[f"{encoder}.quant_conv.bias"])
    attention = state[f"{encoder}.encoder.mid.attn_1.q.weight"]
    assert torch.equal(vae["encoder.mid_block.attentions.0.to_q.weight"], attention[:, :, 0, 0])
    decoder = "first_stage_model.decoder"
    block = "decoder.up_blocks.1.resnets.0" + (".spatial_res_block" if kind == "SVD" else "")
    assert torch.equal(vae[f"{block}.conv_shortcut.weight"], state[f"{decoder}.up.0.block.0.nin_shortcut.weight"])
    assert "post_quant_conv.weight" not in vae
    assert ("decoder.time_conv_out.weight" in vae) == (kind == "SVD")


@torch.no_grad()
def test_the_image_encoder_computes_what_open_clip_computes(written):
    _, state, path = written
    encoder = load_model(path).image_encoder
    clip = {k.split("visual.")[1]: v for k, v in state.items() if "visual." in k}
    pixels = torch.randn(2, 3, 32, 32)
    x = nn.functional.conv2d(pixels, clip["conv1.weight"], stride=16).flatten(2).transpose(1, 2)
    x = torch.cat([clip["class_embedding"].expand(2, 1, -1), x], dim=1) + clip["positional_embedding"]

    def norm(x: Tensor, name: str) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], clip[f"{name}.weight"], clip[f"{name}.bias"], 1e-5)

    x = norm(x, "ln_pre")
    for k in range(2):
        name = f"transformer.resblocks.{k}"
        attention = nn.MultiheadAttention(80, 1, batch_first=True)
        prefix = f"{name}.attn."
        attention.load_state_dict({key.removeprefix(prefix): v for key, v in clip.items() if key.startswith(prefix)})
        y = norm(x, f"{name}.ln_1")
        x = x + attention(y, y, y, need_weights=False)[0]
        y = nn.functional.linear(
            norm(x, f"{name}.ln_2"), clip[f"{name}.mlp.c_fc.weight"], clip[f"{name}.mlp.c_fc.bias"]
        )
        y = nn.functional.gelu(y)
        x = x + nn.functional.linear(y, clip[f"{name}.mlp.c_proj.weight"], clip[f"{name}.mlp.c_proj.bias"])
    expected = norm(x[:, 0], "ln_post") @ clip["proj"]
    torch.testing.assert_close(encoder(pixels).image_embeds, expected, rtol=1e-4, atol=1e-5)


def test_it_is_sampled_as_published_and_names_its_licence(written):
    kind, _, path = written
    facts = load_model(path).facts
    assert facts.licence == f"see LICENSE of {kind}"
    assert (facts.sigma_min, facts.sigma_max) == (0.002, 700.0)
    if kind == "SVD":
        assert (facts.added_time_ids, facts.guidance) == ((6.0, 127.0, 0.02), "linear")
    else:
        assert (facts.added_time_ids, facts.guidance, facts.guidance_high) == ((1e-5,), "triangle", 2.5)
        assert facts.num_steps == 50


@torch.no_grad()
def test_it_goes_through_our_own_layout_unchanged(written, tmp_path):
    _, _, path = written
    model = load_model(path)
    save_model(model, tmp_path / "ours", dtype=torch.float32)
    again = load_model(tmp_path / "ours")
    assert again.facts == model.facts
    assert again.unet.config["input_last"] == model.unet.config["input_last"]
    for name in ("unet", "vae", "image_encoder"):
        before, after = (getattr(m, name).state_dict() for m in (model, again))
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[key]) for key, value in before.items())


@torch.no_grad()
def test_sv3d_sees_its_input_view_last_and_answers_in_the_orbits_order(written):
    kind, _, path = written
    model = load_model(path)
    seen = []
    model.unet.add_embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.unet.conv_in.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    poses = poses_of(static_orbit(5, 10.0, size_px=32))[None]
    conditions = Conditions(
        image_latents=torch.randn(1, 4, 4, 4),
        image_embedding=torch.randn(1, 1, 32),
        added_time_ids=torch.tensor([model.facts.added_time_ids]),
        poses=poses if model.unet.config["pose_embed_dim"] else None,
    )
    noisy = torch.randn(1, 5, 4, 4, 4)
    denoised = Denoiser(model.unet)(noisy, torch.tensor([1e-6]), conditions)
    vector, sample = seen
    first_frame = sample[:, :4] * (1 + 1e-12) ** 0.5
    order = [1, 2, 3, 4, 0] if kind != "SVD" else [0, 1, 2, 3, 4]
    torch.testing.assert_close(first_frame, noisy[0, order])
    if kind == "SV3D_p":  # [cond_aug 256, polar 512, azimuth 512], the first of an azimuth's numbers is its cosine
        azimuth = torch.linspace(0, 2 * math.pi, 6)[:-1]
        torch.testing.assert_close(vector[0, :, 768], azimuth[order].cos(), rtol=0, atol=1e-5)
    # Without noise the denoised clip is the clip itself, c_skip being 1: in the order it was given.
    torch.testing.assert_close(denoised, noisy, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["SV3D_u", "SV3D_p"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda s: s.pop("model.diffusion_model.middle_block.1.time_stack.0.attn1.to_q.weight"),
            r"1 missing: mid_block.attentions.0.temporal_transformer_blocks.0.attn1.to_q.weight",
        ),
        (
            lambda s: s.update({"model.diffusion_model.input_blocks.1.0.stray.weight": torch.zeros(1)}),
            r"1 unknown: model.diffusion_model.input_blocks.1.0.stray.weight",
        ),
        (
            lambda s: s.update({"first_stage_model.encoder.conv_in.weight": torch.zeros(1)}),
            r"1 keys that SV3D_. does not have: first_stage_model.encoder.conv_in.weight",
        ),
        (
            lambda s: s.update({"model.diffusion_model.out.2.bias": torch.zeros(5)}),
            r"conv_out.bias \(5,\) instead of \(4,\)",
        ),
        (
            lambda s: [s.pop(key) for key in list(s) if key.startswith("conditioner.embedders.1.encoder.encoder")],
            "where the autoencoder's encoder lies",
        ),
        (
            lambda s: s.update({"model.diffusion_model.label_emb.0.0.weight": torch.zeros(256, 512)}),
            r"label_emb \(256, 512\); known widths are 768 \(SVD\), 256 \(SV3D_u\), 1280 \(SV3D_p\)",
        ),
        (lambda s: s.clear() or s.update(x=torch.zeros(1)), "holds no SVD or SV3D"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_with_its_keys(tmp_path, kind, damage, message):
    state = make_state(kind)
    damage(state)
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(Mv3dError, match=message) as caught:
        load_model(tmp_path / "bad.safetensors")
    assert "\n" not in str(caught.value)


def test_a_torn_file_is_one_line(tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"\x08" * 99)
    with pytest.raises(Mv3dError, match="no readable safetensors file"):
        load_model(tmp_path / "torn.safetensors")

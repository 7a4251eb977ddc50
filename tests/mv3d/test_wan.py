"""Wan 2.2 TI2V-5B: read from its folder, and until poses are learnt what diffusers makes of it, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from torch import nn
from transformers import AutoTokenizer, UMT5EncoderModel

from mv3d.camera_paths import named_path
from mv3d.cameras import static_orbit
from mv3d.conventions import to_plucker
from mv3d.errors import Mv3dError
from mv3d.generate import GenerateSettings, generate_clip, generate_orbit
from mv3d.model.facts import SampleSettings
from mv3d.model.loading import load_ready_model, place_model
from mv3d.model.models import load_any_model, sample_clip
from mv3d.model.placement import Placement
from mv3d.model.wan_checkpoints import WanModel, load_wan
from mv3d.model.wan_prompt import NEGATIVE_PROMPT, PROMPT, PROMPT_FILE
from mv3d.model.wan_transformer import OrbitTransformer, posed, with_pose_columns
from mv3d.model.wan_video import count_latents, rays_of
from mv3d.model_options import ModelOptions
from tests.mv3d.test_hub import put
from tests.tiny import blocky_picture
from tests.wan import SIZE_PX, TINY_TRANSFORMER

CAMERAS = static_orbit(5, 10.0, size_px=SIZE_PX)
PICTURE = torch.rand(4, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(0))


def small(model: WanModel) -> WanModel:
    return replace(model, facts=replace(model.facts, resolution_px=SIZE_PX, num_views=5, num_steps=2))


@pytest.fixture(scope="module")
def wan(wan_folder) -> WanModel:
    return small(load_wan(wan_folder, "tiny-wan"))


@pytest.fixture
def folder(wan_folder, tmp_path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(wan_folder, tmp_path / "wan"))


def rewritten(path: Path, change: Callable[[dict], dict]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


# -------------------------------------------------------------------------------------------------
# The transformer.


@pytest.mark.parametrize(("batch", "latents", "size"), [(1, 1, 2), (2, 6, 4)])
@torch.no_grad()
def test_with_zero_columns_it_is_stock_wan_bit_for_bit(batch, latents, size):
    torch.manual_seed(0)
    stock = WanTransformer3DModel(**TINY_TRANSFORMER).eval()
    ours = with_pose_columns(stock.state_dict(), stock.config).eval()
    clip, text = torch.randn(batch, 8, latents, size, size), torch.randn(batch, 512, 16)
    times = 1000 * torch.rand(batch, latents * (size // 2) ** 2)
    rays = torch.randn(batch, 24, latents, size, size)
    expected = stock(clip, times, text).sample
    assert torch.equal(ours(torch.cat([clip, rays], dim=1), times, text).sample, expected)
    ours.pose_matrix[:, 8:] += 0.1
    assert not torch.equal(ours(torch.cat([clip, rays], dim=1), times, text).sample, expected)
    with pytest.raises(Mv3dError, match="keeps its trained poses"):
        posed(ours, poses=False)


def test_at_full_size_it_is_ti2v_5b_and_the_pose_columns():
    with torch.device("meta"):
        ours = OrbitTransformer()
        theirs = WanTransformer3DModel(
            num_attention_heads=24, in_channels=48, out_channels=48, ffn_dim=14336, num_layers=30
        )
    shapes = [{name: tuple(value.shape) for name, value in net.state_dict().items()} for net in (ours, theirs)]
    embeddings = [shape.pop("patch_embedding.weight") for shape in shapes]
    assert embeddings == [(3072, 48 + 24, 1, 2, 2), (3072, 48, 1, 2, 2)]
    assert shapes[0] == shapes[1]
    assert theirs.num_parameters() == 4_999_787_712
    assert ours.num_parameters() - theirs.num_parameters() == 24 * 2 * 2 * 3072


def test_poses_are_taken_out_and_put_in_while_they_are_nothing(wan_folder):
    network = load_wan(wan_folder, "x").transformer
    bare = posed(network, poses=False)
    assert bare.config["pose_channels"] == 0
    assert bare.patch_embedding.weight.shape == (24, 8, 1, 2, 2)
    assert posed(bare, poses=True).pose_matrix.shape == (24, 32, 1, 2, 2)


# -------------------------------------------------------------------------------------------------
# Views.


def test_a_latent_has_the_rays_of_its_four_views_from_where_the_first_stands_in_front():
    rays = rays_of([camera.turned(50) for camera in static_orbit(9, 10.0, size_px=SIZE_PX)], 2)
    assert rays.shape == (24, 3, 2, 2)
    plucker = [to_plucker(camera.resized(2, 2)) for camera in static_orbit(9, 10.0, size_px=SIZE_PX)]
    for latent, views in enumerate([(0, 0, 0, 0), (1, 2, 3, 4), (5, 6, 7, 8)]):
        expected = np.concatenate([plucker[view] for view in views], axis=-1)
        np.testing.assert_allclose(rays[:, latent].permute(1, 2, 0).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("views", "words"), [(20, "17 or 21"), (22, "21 or 25"), (2, "1 or 5")])
def test_other_numbers_of_views_are_refused_with_the_next_ones(views, words):
    assert [count_latents(number) for number in (1, 5, 21)] == [1, 2, 6]
    with pytest.raises(Mv3dError, match=f"{words}, that one included, and not {views}") as caught:
        count_latents(views)
    assert caught.value.argument == "num_views"


@pytest.mark.parametrize(("scheduler", "guidance", "dtype"), [("unipc", 5.0, "fp32"), ("euler", 1.0, "bf16")])
@torch.no_grad()
def test_views_are_those_of_diffusers_pipeline_bit_for_bit(folder, scheduler, guidance, dtype):
    if scheduler == "euler":
        FlowMatchEulerDiscreteScheduler(shift=5.0).save_pretrained(folder / "scheduler")
        index = {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
        rewritten(folder / "model_index.json", lambda given: given | index)
    numbers = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = small(load_wan(folder, "x", dtype=numbers))
    picture = torch.cat([PICTURE[:3], torch.ones(1, SIZE_PX, SIZE_PX)])
    found = sample_clip(model, picture, CAMERAS, SampleSettings(5, steps=3, guidance=guidance, seed=7))

    stock = WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=numbers)
    pipeline = WanImageToVideoPipeline.from_pretrained(folder, transformer=stock, text_encoder=None, tokenizer=None)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        picture[None, :3],
        prompt_embeds=model.prompt.padded(),
        negative_prompt_embeds=model.prompt.padded(negative=True),
        height=SIZE_PX,
        width=SIZE_PX,
        num_frames=5,
        num_inference_steps=3,
        guidance_scale=guidance,
        latents=torch.randn(1, 8, 2, 2, 2, generator=torch.Generator().manual_seed(7)),
        output_type="pt",
    ).frames[0]
    assert expected.std() > 0.05
    assert torch.equal(found[:, :3], expected)
    assert bool((found[:, 3] == 1).all())


def test_a_stock_model_makes_clips_and_one_of_orbits_follows_cameras(wan):
    picture = blocky_picture(4, SIZE_PX)
    settings = GenerateSettings(5, 10.0)
    clip = generate_clip(picture, wan, settings)
    assert clip.frames.shape == (5, SIZE_PX, SIZE_PX, 4)
    taught = replace(wan, facts=replace(wan.facts, turns=True))
    with torch.no_grad():
        columns = wan.transformer.pose_matrix[:, 8:]
        columns.copy_(torch.randn(columns.shape, generator=torch.Generator().manual_seed(0)))
        one, other = (
            generate_orbit(picture, taught, replace(settings, azimuths_deg=angles))
            for angles in [(0, 72, 144, 216, 288), (0, 10, 20, 30, 40)]
        )
        columns.zero_()
    assert one.facts.input_index == 0
    assert np.abs(one.frames[1:] - other.frames[1:]).max() > 0.01
    np.testing.assert_array_equal(one.frames[0], picture)


def test_what_wan_cannot_be_asked_is_one_line(wan):
    taught = replace(wan, facts=replace(wan.facts, turns=True))
    picture = blocky_picture(4, SIZE_PX)
    zoomed = named_path("zoom", 5, 10.0)
    for settings, words in [
        (GenerateSettings(5, 10.0, path=zoomed), "from one distance, through one lens .* camera 1 of the path"),
        (GenerateSettings(4, 10.0), "1 or 5"),
        (GenerateSettings(5, 10.0, decode_chunk=2), "leave decode_chunk out"),
        (GenerateSettings(5, 10.0, preview=True), "no coarse stage"),
    ]:
        with pytest.raises(Mv3dError, match=words):
            generate_orbit(picture, taught, settings)


@torch.no_grad()
def test_16_bits_on_a_cpu_are_multiplied_in_32(wan_folder):
    kept = small(load_ready_model(str(wan_folder), "cpu", ModelOptions("bf16")))
    wide = small(load_wan(wan_folder, "x", dtype=torch.bfloat16))
    nn.Module.to(wide.transformer, torch.float32)
    frames = [sample_clip(model, PICTURE, CAMERAS, SampleSettings(5, seed=1)) for model in (kept, wide)]
    assert torch.equal(*frames)
    assert kept.transformer.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert kept.transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32


@torch.no_grad()
def test_layers_that_come_one_by_one_make_the_same_views(wan_folder, wan):
    layers = place_model(small(load_wan(wan_folder, "x")), Placement(torch.device("cpu"), "sequential"))
    assert all(parameter.is_meta for parameter in layers.transformer.parameters())
    found, expected = (sample_clip(model, PICTURE, CAMERAS, SampleSettings(5)) for model in (layers, wan))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


# -------------------------------------------------------------------------------------------------
# The folder.


@torch.no_grad()
def test_the_words_are_embedded_once_as_the_text_encoder_does(folder):
    (folder / PROMPT_FILE).unlink(missing_ok=True)
    made = load_wan(folder, "x").prompt
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16)
    for text, negative in ((PROMPT, False), (NEGATIVE_PROMPT, True)):  # filled up beforehand, as diffusers does
        words = tokenizer(text, padding="max_length", max_length=512, return_tensors="pt")
        hidden = encoder(words.input_ids, words.attention_mask).last_hidden_state.float()
        expected = hidden * words.attention_mask[..., None]
        torch.testing.assert_close(made.padded(negative=negative), expected, rtol=0.02, atol=0.02)
    for name in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / name)
    again = load_wan(folder, "x").prompt
    assert torch.equal(again.prompt, made.prompt)
    assert torch.equal(again.negative, made.negative)
    (folder / PROMPT_FILE).write_bytes(b"broken")
    with pytest.raises(Mv3dError, match=f"{PROMPT_FILE} is damaged"):
        load_wan(folder, "x")
    (folder / PROMPT_FILE).unlink()
    with pytest.raises(Mv3dError, match=f"has no {PROMPT_FILE}, and no text_encoder to make it by"):
        load_wan(folder, "x")


def test_it_is_found_by_its_name_on_the_hub(wan_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    files = {path.relative_to(wan_folder).as_posix(): path for path in wan_folder.rglob("*") if path.is_file()}
    files.pop(PROMPT_FILE, None)
    snapshot = put(tmp_path / "hub", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", files)
    assert load_any_model("Wan-AI/Wan2.2-TI2V-5B-Diffusers").facts.name == "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
    assert (snapshot / PROMPT_FILE).is_file()


def test_facts_of_a_stock_folder(wan_folder):
    model = load_any_model(wan_folder)
    assert isinstance(model, WanModel)
    assert (model.facts.name, model.facts.licence, model.facts.turns) == ("tiny-wan", "apache-2.0", False)
    assert (model.facts.resolution_px, model.facts.num_steps, model.facts.guidance_high) == (704, 50, 5.0)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("model_index.json", {"expand_timesteps": False}, "Wan of another kind than mv3d takes, Wan 2.2 TI2V-5B"),
        ("model_index.json", {"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "a second transformer"),
        ("transformer/config.json", {"image_dim": 16}, "this Wan has image_dim 16"),
        ("transformer/config.json", {"rope_max_seq_len": 10**9}, "rope_max_seq_len 1e[+]09 is too much"),
        ("vae/config.json", {"num_res_blocks": 10**9}, "num_res_blocks 1e[+]09 is too much"),
        ("vae/config.json", {"scale_factor_spatial": 24}, "resolution_px 704 in the transformer's cells of 48 px"),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": False}, "none of flow matching that mv3d knows"),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, "its scheduler DDIMScheduler is none"),
    ],
)
def test_a_folder_of_another_kind_is_one_line(folder, file, change, words):
    rewritten(folder / file, lambda given: given | change)
    with pytest.raises(Mv3dError, match=words):
        load_any_model(folder)


def test_a_shard_that_is_missing_is_named(folder):
    (folder / "transformer" / "diffusion_pytorch_model-00002-of-00005.safetensors").unlink()
    with pytest.raises(Mv3dError, match="lacks diffusion_pytorch_model-00002-of-00005.safetensors, which"):
        load_any_model(folder)
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../b"}}')
    with pytest.raises(Mv3dError, match="names no files beside it"):
        load_any_model(folder)

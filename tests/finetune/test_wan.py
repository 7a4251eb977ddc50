"""Adapting Wan, tiny: by LoRA and whole, as files that mv3d, and the LoRA diffusers too, load again."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from finetune.__main__ import main
from finetune.checkpoint import load_ema
from finetune.dry_run import describe
from finetune.processes import MicroBatch
from finetune.read_config import load_config
from finetune.stages.flow import FlowTraining
from finetune.wan_dry_run import looks_like_wan
from finetune.wan_networks import make_wan_trainee
from mv3d.cli import main as mv3d
from mv3d.conventions import from_nerfstudio
from mv3d.errors import Mv3dError
from mv3d.model.flow import FlowConditions, draw_levels, flow_error
from mv3d.model.lora import LoraUse, lora_tensors, with_loras
from mv3d.model.lora_file import read_lora
from mv3d.model.models import load_any_model
from mv3d.model.wan_checkpoints import WanModel, load_wan
from mv3d.model.wan_video import decode_video, rays_of
from mv3d.orbit import load_orbit
from tests.finetune.conftest import make_rendered

LORA = "lora: {rank: 2, alpha: 2, targets: all}\n"
RECIPE = """
base: {base}
init: base
model_name: toy
data: {data}
run: {run}
num_views: 5
resolution_px: 32
validation_objects: {validation_objects}
diffusion:
  p_mean: 1.6
  p_std: 1.0
  cache: {{variants: 3, backgrounds: true, flip: true, samples_per_shard: 2, buffer_shards: 2}}
  loop: {{steps: 2, batch_size: 2, learning_rate: 1.0e-2, warmup_steps: 1, log_every: 1, save_every: 2,
         validate_every: 2}}
"""


@pytest.fixture(scope="module")
def five_views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rendered(tmp_path_factory.mktemp("five"), 5)


@pytest.fixture
def recipe(five_views: Path, wan_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the YAML; ``more`` stands in the diffusion stage's section, ``top`` beside it."""

    def write(more: str = "", top: str = "", run: str = "run", validation_objects: int = 0) -> Path:
        path = tmp_path / f"{run}.yaml"
        given = {"base": wan_folder, "data": five_views, "run": tmp_path / run}
        text = RECIPE.format(**given, validation_objects=validation_objects)
        path.write_text(text + textwrap.indent(more, "  ") + top)
        return path

    return write


def as_sampled(model: WanModel) -> dict[str, torch.Tensor]:
    """Inputs of a transformer as it is called."""
    generator = torch.Generator().manual_seed(0)
    return {
        "hidden_states": torch.randn(1, 8 + 24, 2, 2, 2, generator=generator),
        "timestep": torch.tensor([[0.0, 500.0]]),
        "encoder_hidden_states": model.prompt.padded(),
    }


# -------------------------------------------------------------------------------------------------
# The loss.


def test_the_velocity_leads_from_clean_to_noise_and_the_picture_is_given_clean():
    seen = []

    def perfect(*, hidden_states, timestep, encoder_hidden_states, return_dict):
        seen.append((hidden_states, timestep))
        return (velocity,)

    clean, noise = torch.randn(2, 8, 2, 4, 4), torch.randn(2, 8, 2, 4, 4)
    velocity, levels = noise - clean, torch.tensor([0.25, 0.75])
    config = {"patch_size": (1, 2, 2), "pose_channels": 24}
    network = type("Perfect", (), {"__call__": staticmethod(perfect), "config": config})()
    network.patch_embedding = SimpleNamespace(weight=torch.zeros(1))
    conditions = FlowConditions(clean[:, :, :1], torch.zeros(2, 4, 16), torch.ones(2, 24, 2, 4, 4))
    assert flow_error(network, clean, noise, levels, conditions).max() < 1e-12
    clip, times = seen[0]
    torch.testing.assert_close(clip[:, :8, 0], clean[:, :, 0])
    torch.testing.assert_close(clip[1, :8, 1], 0.25 * clean[1, :, 1] + 0.75 * noise[1, :, 1])
    assert clip[:, 8:].eq(1).all()
    assert times.tolist() == [[0.0] * 4 + [250.0] * 4, [0.0] * 4 + [750.0] * 4]  # of each patch
    velocity = velocity + torch.tensor([0.0, 2.0]).view(1, 1, 2, 1, 1)  # wrong, but not of the picture
    torch.testing.assert_close(flow_error(network, clean, noise, levels, conditions), torch.tensor([4.0, 4.0]))


def test_levels_are_drawn_around_those_of_the_sampling_shift():
    levels = draw_levels(20000, 1.6, 1.0, torch.Generator().manual_seed(0))
    assert levels.median().item() == pytest.approx(5 * 0.5 / (1 + 4 * 0.5), abs=0.01)  # shift 5 of level 0.5
    assert (levels / (1 - levels)).log().std().item() == pytest.approx(1.0, abs=0.02)


# -------------------------------------------------------------------------------------------------
# Data.


@torch.no_grad()
def test_a_clip_is_the_orbit_from_where_it_begins(recipe):
    stage = FlowTraining(load_config(recipe(LORA)))
    samples = [sample for step in range(9) for sample in stage.clips._samples.samples(step, MicroBatch(0, 1))]
    batch = stage.clips.batch(0)
    assert batch.latents.shape == (2, 8, 2, 2, 2)
    torch.testing.assert_close(batch.conditions.picture, batch.latents[:, :, :1])
    cameras = [from_nerfstudio(frame) for frame in samples[0].facts["cameras"]]
    torch.testing.assert_close(batch.conditions.rays[0], rays_of(cameras, 2))
    assert {sample.facts["variant"] for sample in samples} == {0, 1, 2}
    assert len({sample.facts["start"] for sample in samples}) > 1
    plain = next(sample for sample in samples if sample.facts["variant"] == 0)
    latents = torch.from_numpy(plain.arrays["latents"]).float()[None]
    assert decode_video(stage.model.vae, latents).shape == (1, 3, 5, 32, 32)
    for sample in samples:
        angles = [from_nerfstudio(frame).azimuth_deg for frame in sample.facts["cameras"]]
        step_deg = -72 if sample.facts["variant"] == 1 else 72  # mirrored
        assert angles == pytest.approx([k * step_deg % 360 for k in range(5)], abs=1e-3)
    stage.close()


def test_parts_of_a_batch_add_up_to_it_and_words_are_hidden(recipe):
    stage = FlowTraining(load_config(recipe(LORA + "condition_dropout: 0.5\n")))
    prompts = []
    stage.model.transformer.condition_embedder.text_embedder.register_forward_pre_hook(
        lambda module, args: prompts.extend(args[0])
    )

    def gradients(parts: list[MicroBatch]) -> torch.Tensor:
        stage.network.zero_grad()
        for part in parts:
            (stage.loss(0, torch.Generator().manual_seed(1), part)[0] / len(parts)).backward()
        return torch.cat([p.grad.flatten() for p in stage.network.parameters() if p.requires_grad])

    whole, divided = gradients([MicroBatch(0, 1)]), gradients([MicroBatch(0, 2), MicroBatch(1, 2)])
    torch.testing.assert_close(divided, whole, rtol=1e-3, atol=1e-6)
    assert whole.any()
    for step in range(4):
        stage.loss(step, torch.Generator().manual_seed(step))
    without = stage.model.prompt.padded(negative=True)[0]
    hidden = [torch.equal(prompt, without) for prompt in prompts]
    assert 0 < sum(hidden) < len(hidden)
    stage.close()


# -------------------------------------------------------------------------------------------------
# Runs.


@torch.no_grad()
def test_before_the_first_step_it_is_the_base_bit_for_bit(recipe, wan_folder):
    trainee, base = make_wan_trainee(load_config(recipe(LORA))), load_wan(wan_folder, "x")
    given = as_sampled(base)
    assert torch.equal(trainee.networks(**given).sample, base.transformer(**given).sample)
    trained = [name for name, p in trainee.networks.named_parameters() if p.requires_grad]
    assert all(".lora_" in name or name == "patch_embedding.weight" for name in trained)
    assert any(".ffn." in name for name in trained)


@pytest.mark.slow
def test_a_lora_learns_and_is_loaded_by_mv3d_and_diffusers(recipe, wan_folder, tmp_path, capsys):
    assert main([str(recipe(LORA, validation_objects=1))]) == 0
    said = capsys.readouterr()
    assert "licence of" in said.err
    assert "apache-2.0" in said.err
    path = tmp_path / "run/lora/pytorch_lora_weights.safetensors"
    assert said.out.strip() == str(path)
    lines = [json.loads(line) for line in (tmp_path / "run/diffusion/log.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in scored] == [0, 2]
    assert {"val_psnr", "val_lpips", "val_loss_0.65", "val_loss_0.83", "val_loss_0.93"} <= scored[0].keys()
    card = (tmp_path / "run/lora/README.md").read_text()
    assert "license: apache-2.0" in card
    assert "`WanImageToVideoPipeline` reads it too" in card

    lora = read_lora(path)
    assert lora.pose.shape == (24, 24, 1, 2, 2)
    assert lora.pose.any()
    base = load_any_model(wan_folder)
    given = as_sampled(base)
    with torch.no_grad():
        before = base.transformer(**given).sample
        model = with_loras(base, [LoraUse(path)])
        after = model.transformer(**given).sample
        assert (after - before).abs().max() > 1e-4
        assert model.facts.turns
        trained = make_wan_trainee(load_config(recipe(LORA)))
        load_ema(tmp_path / "run/diffusion", trained.networks)
        torch.testing.assert_close(trained.networks(**given).sample, after, rtol=1e-4, atol=1e-5)

    stock = WanImageToVideoPipeline.from_pretrained(wan_folder, text_encoder=None, tokenizer=None)
    stock.load_lora_weights(path.parent, adapter_name="x")
    tensors = {key: value for key, value in load_file(path).items() if not key.startswith("pose.")}
    read = lora_tensors(stock.transformer.state_dict(), "x")
    assert {f"transformer.{key}" for key in read} == tensors.keys()
    assert all(torch.equal(value, tensors[f"transformer.{key}"]) for key, value in read.items())


def test_own_pictures_are_drawn_without_held_out_objects(recipe, tmp_path):
    photo = Image.new("RGB", (80, 60), "white")
    ImageDraw.Draw(photo).rectangle((30, 20, 59, 39), fill=(200, 0, 0))
    photo.save(tmp_path / "photo.png")
    stage = FlowTraining(load_config(recipe(LORA, top=f"pictures: {tmp_path / 'photo.png'}\n")))
    size_px = stage.model.facts.resolution_px
    assert stage.validate(stage.network, tmp_path / "sheet.png") == {}
    stage.close()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * size_px, 2 * size_px)  # of 5 views every second: the picture's, and the model's
        red, green, blue = sheet.convert("RGB").getpixel((size_px // 2, size_px // 2))
    assert red > 170
    assert max(green, blue) < 40


def test_a_lora_of_one_kind_on_the_other_is_one_line(recipe, wan_folder, svd_folder, tmp_path):
    assert main([str(recipe(LORA, run="short")), "--set", "diffusion.loop.steps=1"]) == 0
    path = tmp_path / "short/lora/pytorch_lora_weights.safetensors"
    with pytest.raises(Mv3dError, match="made for tiny-wan, is a LoRA of Wan's transformer, and this model has SVD's"):
        with_loras(load_any_model(svd_folder), [LoraUse(path)])
    assert mv3d(["lora", "convert", str(path), "-o", str(tmp_path / "peft"), "--to", "peft"]) == 0
    again = tmp_path / "again.safetensors"
    assert mv3d(["lora", "convert", str(tmp_path / "peft"), "-o", str(again), "--to", "diffusers"]) == 0
    assert again.read_bytes() == path.read_bytes()
    assert mv3d(["lora", "convert", str(path), "-o", str(tmp_path / "k.safetensors"), "--to", "kohya"]) == 2


def test_a_lora_by_wans_own_names_is_read(wan_folder, tmp_path):
    """As ComfyUI's users share them, with and without an alpha."""
    base = load_any_model(wan_folder)
    halves = {"lora_A": torch.randn(2, 24), "lora_B": torch.randn(24, 2)}
    one = {f"diffusion_model.blocks.1.self_attn.q.{half}.weight": value for half, value in halves.items()}
    save_file(one, tmp_path / "one.safetensors")
    names = {"lora_A": "lora_down", "lora_B": "lora_up"}
    two = {f"diffusion_model.blocks.1.self_attn.q.{names[half]}.weight": value for half, value in halves.items()}
    two["diffusion_model.blocks.1.self_attn.q.alpha"] = torch.tensor(1.0)
    save_file(two, tmp_path / "two.safetensors")
    before = base.transformer.blocks[1].attn1.to_q.weight.detach().clone()
    expected = before + halves["lora_B"] @ halves["lora_A"]
    changed = with_loras(base, [LoraUse(tmp_path / "one.safetensors")]).transformer.blocks[1].attn1.to_q.weight
    torch.testing.assert_close(changed, expected)
    changed = with_loras(base, [LoraUse(tmp_path / "two.safetensors", -2.0)]).transformer.blocks[1].attn1.to_q.weight
    torch.testing.assert_close(changed, before)


@pytest.mark.slow
def test_all_weights_become_a_folder_that_makes_orbits(recipe, tmp_path, monkeypatch):
    assert main([str(recipe(run="whole"))]) == 0
    folder = tmp_path / "whole/model"
    model = load_any_model(folder)
    assert isinstance(model, WanModel)
    assert model.transformer.pose_matrix[:, 8:].any()
    assert (model.facts.name, model.facts.num_views, model.facts.turns) == ("toy", 5, True)
    assert not (folder / "text_encoder").exists()
    stored = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
    assert stored["blocks.0.attn1.to_q.weight"].dtype == torch.bfloat16
    assert stored["blocks.0.scale_shift_table"].dtype == torch.float32
    AutoencoderKLWan.from_pretrained(folder / "vae")
    picture = Image.new("RGB", (64, 64), (255, 255, 255))
    ImageDraw.Draw(picture).rectangle((20, 10, 44, 54), fill=(150, 80, 20))
    picture.save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    words = ["orbit", "a.png", "--model", str(folder), "--steps", "2", "--dtype", "bf16"]
    assert mv3d([*words, "--num-views", "5"]) == 0
    orbit = load_orbit(tmp_path / "a_orbit")
    assert orbit.frames.shape == (5, 32, 32, 4)
    assert mv3d([*words, "-o", "b"]) == 0
    assert len(load_orbit(tmp_path / "b").frames) == 21
    assert mv3d([*words, "--num-views", "6", "-o", "c"]) == 2


@pytest.mark.parametrize(
    ("more", "top", "words"),
    [
        ("", "num_views: 4\n", "1 or 5, that one included, and not 4"),
        ("lora: {rank: 2}\n", "", "temporal_attention: Wan attends to all views at once"),
        ("distillation: {num_steps: 2}\n", "", "is Wan, for which there is no diffusion.distillation"),
        ("conditions: {input_last: true}\n", "", "no diffusion.conditions but poses"),
        ("cond_noise_mean: -3.0\n", "", "no diffusion.cond_noise_mean"),
    ],
)
def test_what_is_not_for_wan_is_refused(recipe, more, top, words):
    path = recipe(more)
    path.write_text(path.read_text().replace("num_views: 5\n", top or "num_views: 5\n"))
    with pytest.raises(Mv3dError, match=words):
        make_wan_trainee(load_config(path))
    with pytest.raises(Mv3dError, match=words):
        describe(load_config(path))


# -------------------------------------------------------------------------------------------------
# Memory.


@pytest.mark.slow
def test_a_base_in_less_memory_gives_nearly_the_same_gradients(recipe):
    gradients, losses, sizes = {}, {}, {}
    for storage in ("float32", "bfloat16", "float8", "cpu"):
        lora = LORA.replace("}", f", base_storage: {storage}}}")
        stage = FlowTraining(load_config(recipe(lora, run=storage), ["diffusion.loop.bfloat16=true"]))
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = stage.loss(0, torch.Generator().manual_seed(0))
        loss.backward()
        stage.close()
        trained = [p for p in stage.network.parameters() if p.requires_grad]
        assert {p.dtype for p in trained} == {torch.float32}
        gradients[storage] = torch.cat([p.grad.flatten() for p in trained])
        losses[storage] = loss.item()
        sizes[storage] = sum(p.numel() * p.element_size() for p in stage.network.parameters() if not p.requires_grad)
    assert torch.equal(gradients["cpu"], gradients["bfloat16"])
    for storage, least in (("bfloat16", 0.99), ("float8", 0.9)):
        assert losses[storage] == pytest.approx(losses["float32"], rel=0.05)
        assert torch.nn.functional.cosine_similarity(gradients["float32"], gradients[storage], dim=0) > least
    assert sizes["cpu"] < sizes["bfloat16"] < 0.7 * sizes["float32"]


@pytest.mark.slow
def test_the_recipe_fits_a_card_of_16_gb(capsys):
    assert main(["configs/wan_mv_lora.yaml", "--dry-run"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["parameters_million"] == pytest.approx(5047, abs=1)
    assert found["trained_million"] == pytest.approx(48, abs=0.5)
    assert found["memory_gib"]["weights"] == pytest.approx(9.5, abs=0.1)
    assert found["memory_gib"]["activations"] == pytest.approx(1.55, abs=0.1)
    assert found["card"].startswith("16 GB suffice, ")


def test_a_base_on_the_hub_is_wan_by_its_name_alone(monkeypatch):
    def refuse(*asked: object, **how: object) -> None:
        raise AssertionError(f"{asked} was asked for")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    assert looks_like_wan("Wan-AI/Wan2.2-TI2V-5B-Diffusers")
    assert looks_like_wan("someone/wan_orbits/model.safetensors")
    assert not looks_like_wan("wan/sv3d/sv3d_p.safetensors")
    with pytest.raises(Mv3dError, match="there is no model ./wan"):  # a folder that is not here
        looks_like_wan("./wan/base")


def test_a_dry_run_of_a_folder_reads_its_sizes(recipe):
    found = describe(load_config(recipe(LORA)))
    trainee = make_wan_trainee(load_config(recipe(LORA)))
    assert found["parameters_million"] == round(sum(p.numel() for p in trainee.networks.parameters()) / 1e6, 2)
    trained = sum(p.numel() for p in trainee.networks.parameters() if p.requires_grad)
    assert found["trained_million"] == round(trained / 1e6, 2)
    assert found["memory_gib"]["memory"] > 0

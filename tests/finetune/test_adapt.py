"""Adapting a model of SVD's own format: whole and by LoRA, stopped and resumed, in parts, by several processes."""

from __future__ import annotations

import gc
import json
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from finetune.__main__ import main
from finetune.checkpoint import latest_checkpoint
from finetune.networks import make_trainee
from finetune.processes import MicroBatch
from finetune.read_config import load_config
from finetune.recompute import recompute_layers
from finetune.stages.diffusion import DiffusionTraining
from mv3d.conventions import from_nerfstudio
from mv3d.errors import Mv3dError
from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.model.checkpoints import load_model
from mv3d.model.lora import LoraUse, with_loras
from mv3d.model.lora_file import read_lora

LORA = "lora: {rank: 2, alpha: 2, targets: temporal_attention}\n"


def weights(run: Path) -> dict[str, torch.Tensor]:
    folder = latest_checkpoint(run / "diffusion")
    files = {name: load_file(folder / f"{name}.safetensors") for name in ("network", "ema", "optimizer")}
    return {f"{name}.{key}": value for name, content in files.items() for key, value in content.items()}


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "diffusion" / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


@pytest.mark.slow
def test_svd_becomes_a_model_that_makes_orbits(write_recipe, tmp_path, svd_folder, capsys):
    once = write_recipe("once", validation_objects=1)
    assert main([str(once)]) == 0
    assert "licence of" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "once/diffusion/log.jsonl").read_text().splitlines()]
    assert {"val_psnr", "val_ssim", "val_lpips"} <= lines[-1].keys()
    assert all("images_per_s" in line for line in lines if "loss" in line)
    assert (tmp_path / "once/diffusion/sheets/0000004.mp4").is_file()

    # Two steps, then two more: the same, bit for bit, and validating in between changes nothing.
    twice = write_recipe("twice")
    assert main([str(twice), "--set", "diffusion.loop.steps=2"]) == 0
    assert main([str(twice)]) == 0
    assert equal(weights(tmp_path / "once"), weights(tmp_path / "twice"))

    folder = tmp_path / "once" / "model"
    assert (folder / "LICENSE.md").read_text() == "Non-commercial."
    assert (folder / "ATTRIBUTION.txt").is_file()
    model = load_model(folder)
    assert model.facts.name == "toy"
    assert model.facts.licence == "see LICENSE.md of tiny-svd"
    columns = model.unet.add_embedding.linear_1.weight[:, 24:]
    assert columns.any()  # the poses were learnt
    picture = np.ones((32, 32, 4), dtype=np.float32)
    orbit = generate_orbit(picture, model, GenerateSettings(num_views=4, steps=2))
    assert orbit.frames.shape == (4, 32, 32, 4)
    assert orbit.facts.licence == "see LICENSE.md of tiny-svd"


def test_training_sees_the_ids_that_sampling_gives_and_the_picture_unscaled(write_recipe):
    """Defects of others: frames per second one apart, the picture's latents scaled, a batch of one only."""
    stage = DiffusionTraining(load_config(write_recipe(top="seed: 3\n")))
    seen = []
    stage.model.unet.register_forward_pre_hook(lambda module, args: seen.append(args))
    stage.loss(0, torch.Generator().manual_seed(0))
    sample, timestep, _, ids, poses = seen[0]
    assert sample.shape[:2] == (2, 4)
    assert timestep.shape == (2,)  # one noise level per clip
    assert ids[:, :2].tolist() == [list(stage.model.facts.added_time_ids[:2])] * 2
    samples = stage.clips.samples(0)
    starts = torch.randint(2**31, (2,), generator=torch.Generator().manual_seed(0)) % 4
    for k, (clip, start) in enumerate(zip(samples, starts.tolist(), strict=True)):
        assert ids[k, 2].item() == pytest.approx(clip.facts["cond_aug"][start])
        noisy = torch.from_numpy(clip.arrays["noisy"][start]).float()
        shown = sample[k, :, 4:]
        assert torch.equal(shown, noisy.expand_as(shown)) or not shown.any()  # or dropped
        azimuth = [from_nerfstudio(camera).azimuth_deg for camera in clip.facts["cameras"]]
        turned = np.radians((np.roll(azimuth, -start) - azimuth[start]) % 360)
        np.testing.assert_allclose(poses[k, :, 1], turned, atol=1e-5)
    stage.close()


def test_a_mirrored_variant_turns_the_other_way(write_recipe):
    stage = DiffusionTraining(load_config(write_recipe()))
    samples = [sample for step in range(12) for sample in stage.clips.samples(step)]
    stage.close()
    by_name = {
        (s.facts["object_id"], s.facts["variant"]): [from_nerfstudio(camera) for camera in s.facts["cameras"]]
        for s in samples
    }
    assert {variant for _, variant in by_name} == {0, 1, 2}
    for (name, variant), cameras in by_name.items():
        for camera, as_rendered in zip(cameras, by_name[name, 0], strict=True):
            expected = as_rendered.azimuth_deg * (-1 if variant == 1 else 1)
            assert (camera.azimuth_deg - expected + 1) % 360 == pytest.approx(1)
            assert camera.elevation_deg == pytest.approx(as_rendered.elevation_deg)


@pytest.mark.parametrize("more", ["", LORA])
def test_parts_of_a_batch_add_up_to_it(write_recipe, more):
    stage = DiffusionTraining(load_config(write_recipe(more=more)))

    def gradients(parts: list[MicroBatch]) -> tuple[float, dict[str, torch.Tensor]]:
        stage.network.zero_grad()
        total = 0.0
        for part in parts:
            loss, _ = stage.loss(1, torch.Generator().manual_seed(7), part)
            (loss / len(parts)).backward()
            total += loss.item() / len(parts)
        return total, {name: p.grad.clone() for name, p in stage.network.named_parameters() if p.grad is not None}

    whole, by_name = gradients([MicroBatch()])
    divided, parts = gradients([MicroBatch(0, 2), MicroBatch(1, 2)])
    assert divided == pytest.approx(whole, rel=1e-5)
    assert by_name.keys() == parts.keys()
    for name, value in by_name.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-5)
    recompute_layers(stage.network)
    again, checkpointed = gradients([MicroBatch()])
    assert again == whole
    assert all(torch.equal(checkpointed[name], value) for name, value in by_name.items())
    stage.close()


@pytest.mark.parametrize("how", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_train_as_one(write_recipe, tmp_path, fork, how):
    # At a fine-tuner's learning rate. AdamW steps as far where a gradient is rounding alone as elsewhere: at 1e-3 the
    # curves are 1e-4 apart after four steps (benchmarks/rounding.py).
    more = ["--set", "diffusion.loop.batch_size=4", "--set", "diffusion.loop.learning_rate=2e-5"]
    assert main([str(write_recipe("alone")), *more]) == 0
    recipe = str(write_recipe(how))
    shard = ["--set", f"diffusion.loop.shard={str(how == 'fsdp').lower()}"]
    port = str(20000 + os.getpid() % 20000)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [fork(lambda: main([recipe, *more, *shard]), RANK=str(k), LOCAL_RANK=str(k), **shared) for k in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    np.testing.assert_allclose(losses(tmp_path / how), losses(tmp_path / "alone"), rtol=0, atol=1e-5)
    assert len(losses(tmp_path / how)) == 4
    one, two = weights(tmp_path / "alone"), weights(tmp_path / how)
    assert one.keys() == two.keys()
    assert max((one[key] - two[key]).abs().max().item() for key in one if key.startswith("network.")) < 2e-4
    model = load_model(tmp_path / how / "model")
    assert torch.isfinite(model.unet.conv_in.weight).all()


@pytest.mark.slow
def test_a_lora_learns_brings_poses_and_is_small(write_recipe, tmp_path, svd_folder):
    assert main([str(write_recipe(more=LORA))]) == 0
    path = tmp_path / "run/lora/pytorch_lora_weights.safetensors"
    lora = read_lora(path)
    facts = lora.facts
    assert (facts.base, facts.rank, facts.alpha, facts.pose) == ("tiny-svd", 2, 2.0, True)
    assert facts.licence == "see LICENSE.md of tiny-svd"
    assert (path.parent / "LICENSE.md").is_file()
    assert lora.pose.any()
    saved = weights(tmp_path / "run")
    assert all("lora" in key or "add_embedding.linear_1.weight" in key for key in saved if key.startswith("ema."))

    # What was trained is what the file gives back: the averages in the trained network, and the file on a fresh base.
    stage = DiffusionTraining(load_config(tmp_path / "run.yaml"))
    state = {key.removeprefix("ema."): value for key, value in saved.items() if key.startswith("ema.")}
    stage.network.load_state_dict(state, strict=False)
    fresh = with_loras(load_model(svd_folder), [LoraUse(path)])
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(1, 4, 8, 4, 4, generator=generator),
        torch.zeros(1),
        torch.randn(1, 1, 16, generator=generator),
        torch.tensor([[6.0, 127.0, 0.02]]),
        torch.rand(1, 4, 2, generator=generator),
    )
    with torch.no_grad():
        trained, loaded = stage.networks.unet(*inputs), fresh.unet(*inputs)
        untouched = load_model(svd_folder).unet(*inputs)
    torch.testing.assert_close(loaded, trained, rtol=1e-4, atol=1e-5)
    assert (trained - untouched).abs().max() > 1e-4
    stage.close()


@pytest.mark.slow
def test_what_was_trained_is_gone_when_the_model_is_written(write_recipe, monkeypatch):
    """Else a LoRA of SVD needs twice the memory at its end, which training did not."""
    made, there = [], []

    def remembered(*given):
        trainee = make_trainee(*given)
        made.append(weakref.ref(trainee.model.unet.mid_block.resnets[0]))  # a layer whose activations are not kept
        return trainee

    monkeypatch.setattr("finetune.stages.diffusion.make_trainee", remembered)
    monkeypatch.setattr("finetune.export.export_model", lambda config, device: there.append((made[0](), device)))
    gc.disable()
    try:
        sets = ["diffusion.loop.steps=1", "diffusion.loop.checkpointing=true"]
        assert main([str(write_recipe(more=LORA)), *(word for one in sets for word in ("--set", one))]) == 0
    finally:
        gc.enable()
    assert there == [(None, "cpu")]


def test_sv3ds_conditions_begin_as_svd(write_recipe, svd_folder):
    conditions = "{cond_aug_only: true, poses: true, input_last: true}"
    stage = DiffusionTraining(load_config(write_recipe(conditions=conditions)))
    unet, facts = stage.model.unet, stage.model.facts
    assert tuple(unet.add_embedding.linear_1.weight.shape) == (128, 8 + 2 * 512)
    stock = load_model(svd_folder).unet
    assert torch.equal(unet.add_embedding.linear_1.weight[:, :8], stock.add_embedding.linear_1.weight[:, 16:24])
    assert not unet.add_embedding.linear_1.weight[:, 8:].any()
    assert unet.config["input_last"]
    assert (facts.added_time_ids, facts.guidance, facts.guidance_high, facts.num_steps) == (
        (1e-5,),
        "triangle",
        2.5,
        50,
    )
    stage.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "diffusion.loop.accumulate=3"], "batch_size 2 is no multiple of 3"),
        (["--set", "num_views=3"], "an orbit of 4 views cannot be thinned to 3"),
        (["--set", "diffusion.lora={targets: everything}"], "must be one of temporal_attention, attention, all"),
        (["--set", "diffusion.lora={ranc: 3}"], "did you mean 'rank'"),
        (["--set", "category=Chairs"], "no rendered orbit in there of category Chairs"),
        (["--set", "base=nowhere"], "there is no model nowhere"),
        (["--stage", "coarse"], "has no stage coarse; it has diffusion (--stage)"),
    ],
)
def test_a_mistake_is_one_line(write_recipe, capsys, arguments, message):
    assert main([str(write_recipe()), *arguments]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in last


@pytest.mark.slow
def test_own_pictures_are_drawn_at_every_validation(write_recipe, tmp_path):
    """Without held-out objects: from the picture as `mv3d orbit` frames it, at the size of the training frames."""
    picture = np.full((60, 80, 3), 255, dtype=np.uint8)
    picture[20:40, 30:60] = (200, 0, 0)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    recipe = write_recipe(top=f"pictures: {tmp_path / 'photo.png'}\n")
    stage = DiffusionTraining(load_config(recipe))
    assert stage.validate(stage.network, tmp_path / "sheets/0000000.png") == {}
    stage.close()
    sheet = np.asarray(Image.open(tmp_path / "sheets/0000000.png")).astype(int)
    assert sheet.shape == (2 * 32, 2 * 32, 3)  # 4 views of 32 px, of which every second is shown
    shown = sheet[:32, :32]
    red = np.abs(shown - (200, 0, 0)).max(axis=-1) < 20
    assert 22 <= np.ptp(np.nonzero(red.any(axis=0))) <= 25  # 30 x 20 px in a circle of .92 of the frame
    assert 14 <= np.ptp(np.nonzero(red.any(axis=1))) <= 17
    assert (shown[~red].min(axis=-1) > 90).all()  # white, or its edge
    assert (sheet[:32, 32:] == shown).all()
    assert sheet[32:].std() > 1  # what a model of random weights makes of it


@pytest.mark.parametrize("kind", ["missing", "text", "empty"])
def test_an_own_picture_that_is_none_is_told_before_anything_is_done(write_recipe, tmp_path, capsys, kind):
    path = tmp_path / "photo.png"
    if kind == "text":
        path.write_text("no picture")
    if kind == "empty":
        Image.new("RGBA", (32, 32)).save(path)
    assert main([str(write_recipe()), "--set", f"pictures=[{path}]"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("finetune: pictures: ")
    assert str(path) in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_trained_poses_are_not_thrown_away(write_recipe, tmp_path):
    assert main([str(write_recipe())]) == 0
    with pytest.raises(Mv3dError, match="its trained poses"):
        DiffusionTraining(
            load_config(write_recipe("next", conditions="{poses: false}"), [f"base={tmp_path}/run/model"])
        )

"""The estimate before a run, against what the networks and a step really take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.training_memory import MemoryOptions, computed_peak, measured_peak
from finetune.__main__ import main
from finetune.dry_run import ClipSize, describe, estimate
from finetune.loop_config import LoopConfig
from mv3d.model.unet import OrbitUNet
from tests.tiny import TINY_UNET

PRESETS = sorted(path.name for path in Path("configs").glob("*.yaml") if path.name != "curation.yaml")  # render's
LOOP = LoopConfig(steps=1, batch_size=2, learning_rate=1e-3)
SIZES = TINY_UNET | {"pose_embed_dim": 16}


def make_unet(width: int) -> OrbitUNet:
    sizes = {"block_out_channels": (width, 2 * width), "num_attention_heads": (1, 2)}
    return OrbitUNet(**(TINY_UNET | sizes), pose_embed_dim=16)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        MemoryOptions(lora=False, batch_size=2, accumulate=2),
        MemoryOptions(lora=False, checkpointing=True),
        MemoryOptions("bfloat16"),
        MemoryOptions("float8", checkpointing=True),
        MemoryOptions("cpu", checkpointing=True),
    ],
    ids=str,
)
def test_the_memory_is_the_peak_of_real_steps(options):
    """All that torch allocates for network, optimizer, averages and a whole step."""
    measured = measured_peak(options, SIZES, ClipSize(4, 12))
    assert computed_peak(options, SIZES, ClipSize(4, 12)) == pytest.approx(measured, rel=0.15)


@pytest.mark.slow
def test_less_memory_where_it_is_saved():
    plain = estimate(make_unet(32), ClipSize(5, 8), LOOP)
    checkpointed = estimate(make_unet(32), ClipSize(5, 8), LoopConfig(1, 2, 1e-3, checkpointing=True))
    divided = estimate(make_unet(32), ClipSize(5, 8), LoopConfig(1, 2, 1e-3, accumulate=2))
    sharded = estimate(make_unet(32), ClipSize(5, 8), LoopConfig(1, 2, 1e-3, shard=True), processes=2)
    assert checkpointed.activations < 0.7 * plain.activations
    assert checkpointed.flops > plain.flops
    assert divided.activations < 0.6 * plain.activations
    assert divided.flops == pytest.approx(plain.flops, rel=0.01)
    assert sharded.weights == plain.weights // 2


@pytest.mark.parametrize("name", ["debug.yaml", pytest.param("svd_mv_lora.yaml", marks=pytest.mark.slow)])
def test_a_dry_run_says_what_it_would_take(name, capsys):
    assert main([f"configs/{name}", "--dry-run"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["memory_gib"]["memory"] > 0
    assert found["steps_per_day"] > 0
    if name == "svd_mv_lora.yaml":
        assert found["parameters_million"] == pytest.approx(1526, abs=5)
        assert found["trained_million"] < 20
        assert found["memory_gib"]["moments"] < 0.2
        assert found["memory_gib"]["activations"] == pytest.approx(7.4, abs=0.2)
        assert found["card"].startswith("16 GB suffice, ")


@pytest.mark.slow
def test_a_base_on_the_hub_is_not_downloaded_to_be_estimated(monkeypatch):
    from finetune.read_config import load_config

    base = "stabilityai/sv3d/sv3d_p.safetensors"

    def refuse(*asked: object, **how: object) -> None:
        raise AssertionError(f"{asked} was asked for")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    sizes = [f"base={base}", "num_views=2", "resolution_px=64"]
    found = describe(load_config(Path("configs/svd_mv_lora.yaml"), sizes))
    assert found["network"] == f"{base}, taken to be of SVD's size (it is not here to be read)"
    assert found["parameters_million"] == pytest.approx(1526, abs=5)


@pytest.mark.slow
def test_lpips_discriminator_and_decoder_count():
    from finetune.read_config import load_config

    def described(*settings: str) -> dict:
        return describe(load_config(Path("configs/debug.yaml"), [f"diffusion.{text}" for text in settings]))

    plain, sharp = described(), described("lpips_weight=1")
    along = described("lpips_weight=1", "train_decoder=true")
    judged = described("lpips_weight=1", "train_decoder=true", "discriminator_weight=0.1")
    activations = [step["memory_gib"]["activations"] for step in (plain, sharp, along, judged)]
    assert activations[0] < activations[1] <= activations[2] < activations[3]
    assert plain["tera_flop_per_step"] < sharp["tera_flop_per_step"]
    assert plain["trained_million"] == sharp["trained_million"] < along["trained_million"] < judged["trained_million"]


@pytest.mark.slow
def test_the_card_is_one_that_holds_it_and_processes_share_the_batch(capsys):
    def dry_run(*more: str) -> dict:
        assert main(["configs/mini.yaml", "--dry-run", *more]) == 0
        return json.loads(capsys.readouterr().out)["estimate"]

    one, two = dry_run(), dry_run("--processes", "2")
    assert two["memory_gib"]["activations"] == pytest.approx(one["memory_gib"]["activations"] / 2, rel=0.05)
    buckets = 4 * one["trained_million"] * 1e6 / 2**30  # DDP's
    assert two["memory_gib"]["gradients"] == pytest.approx(one["memory_gib"]["gradients"] + buckets, abs=2e-3)
    for found, words in ((one, "GB suffice, "), (two, "GB suffice for each of 2 processes, ")):
        card, needed = found["card"].split(words)
        gib = float(needed.split(" GiB")[0])
        assert gib == pytest.approx(1.1 * found["memory_gib"]["memory"] + 1, abs=0.1)
        assert float(card) >= gib


@pytest.mark.slow
def test_a_teacher_costs_its_weights_and_its_estimates():
    from finetune.read_config import load_config

    distilled = load_config(Path("configs/mini_4steps.yaml"))
    undistilled = replace(distilled, diffusion=replace(distilled.diffusion, distillation=None))
    found, plain = (describe(config) for config in (distilled, undistilled))
    assert found["memory_gib"]["weights"] == pytest.approx(2 * plain["memory_gib"]["weights"], abs=2e-3)
    # The way there and back is three passes; the teacher with and without the picture, and the target, are three more.
    assert found["tera_flop_per_step"] == pytest.approx(2 * plain["tera_flop_per_step"], rel=1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_loads(name):
    from finetune.read_config import load_config

    config = load_config(Path("configs") / name)
    assert config.run == Path("runs") / name.removesuffix(".yaml")


def test_the_recipes_are_the_published_ones():
    """SVD-MV: 12k steps of 16, 1e-5; camera LoRAs: rank 16; SV3D: 55k and 50k steps of 64, its three conditions."""
    from finetune.read_config import load_config

    svd_mv, lora, static, dynamic = (
        load_config(Path(f"configs/{name}.yaml")) for name in ("svd_mv", "svd_mv_lora", "sv3d_u", "sv3d_p")
    )
    loops = [config.diffusion.loop for config in (svd_mv, lora, static, dynamic)]
    assert (loops[0].steps, loops[0].batch_size, loops[0].learning_rate) == (12000, 16, 1e-5)
    assert (svd_mv.diffusion.cond_noise_mean, svd_mv.diffusion.cond_noise_std) == (-3.0, 0.5)
    adapter = lora.diffusion.lora
    assert adapter is not None
    assert (adapter.rank, adapter.targets, loops[1].steps) == (16, "temporal_attention", 5000)
    assert [(loop.steps, loop.batch_size, loop.ema_decay) for loop in loops[2:]] == [
        (55000, 64, 0.9999),
        (50000, 64, 0.9999),
    ]
    conditions = [config.diffusion.conditions for config in (static, dynamic)]
    assert [(c.cond_aug_only, c.poses, c.input_last) for c in conditions] == [(True, False, True), (True, True, True)]
    assert dynamic.base == "runs/sv3d_u/model"
    assert {r.num_views for r in (svd_mv, lora, static, dynamic)} == {21}

"""The estimate before a run, against what the networks and a step really take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.__main__ import main
from finetune.dry_run import ClipSize, describe, estimate
from finetune.ema import Ema
from finetune.loop import make_optimizer
from finetune.loop_config import LoopConfig
from mv3d.model.conditioning import Conditions
from mv3d.model.denoiser import Denoiser
from mv3d.model.unet import OrbitUNet
from tests.tiny import TINY_UNET

PRESETS = sorted(path.name for path in Path("configs").glob("*.yaml") if path.name != "curation.yaml")  # render's
LOOP = LoopConfig(steps=1, batch_size=2, learning_rate=1e-3)


def make_unet(width: int) -> OrbitUNet:
    sizes = {"block_out_channels": (width, 2 * width), "num_attention_heads": (1, 2)}
    return OrbitUNet(**(TINY_UNET | sizes), pose_embed_dim=16)


@pytest.mark.parametrize(("width", "frames", "side"), [(32, 3, 4), (64, 5, 8)])
def test_activations_are_those_that_a_real_step_keeps(width, frames, side):
    found = estimate(make_unet(width), ClipSize(frames, side), LOOP)
    unet = make_unet(width)
    own = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    kept = {}

    def pack(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), value)
        return value

    conditions = Conditions(
        torch.zeros(2, 4, side, side), torch.zeros(2, 1, 16), torch.zeros(2, 3), torch.zeros(2, frames, 2)
    )
    latents = torch.randn(2, frames, 4, side, side)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        Denoiser(unet).loss(latents, torch.ones(2), torch.randn_like(latents), conditions).mean()
    measured = sum(size for size, _ in kept.values())
    assert found.activations == pytest.approx(measured, rel=0.02)
    count = sum(p.numel() for p in unet.parameters())
    assert (found.parameters, found.trained, found.weights) == (count, count, 4 * count)
    assert found.memory == 4 * count * 5 + found.activations  # weights, gradients, two moments, average


@pytest.mark.parametrize(("width", "frames", "side"), [(32, 3, 4), (64, 9, 16)])
def test_the_memory_is_a_little_more_than_the_peak_of_real_steps(width, frames, side):
    """All that torch allocates for network, optimizer, averages and two whole steps, when most of it is there."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        unet = make_unet(width)
        optimizer, ema = make_optimizer(unet, LOOP), Ema(unet)
        for _ in range(2):
            given = Conditions(
                torch.zeros(2, 4, side, side), torch.zeros(2, 1, 16), torch.zeros(2, 3), torch.zeros(2, frames, 2)
            )
            latents = torch.randn(2, frames, 4, side, side)
            Denoiser(unet).loss(latents, torch.ones(2), torch.randn_like(latents), given).mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.update(0.99)
    reported = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = np.cumsum([event.nbytes() for event in sorted(reported, key=lambda event: event.start_ns())]).max()
    # Gradients appear while activations go, so the two peaks do not quite meet.
    assert peak < estimate(make_unet(width), ClipSize(frames, side), LOOP).memory < 1.25 * peak


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


@pytest.mark.parametrize("name", ["debug.yaml", "mini_lora.yaml", "svd_mv_lora.yaml"])
def test_a_dry_run_says_what_it_would_take(name, capsys):
    assert main([f"configs/{name}", "--dry-run"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["memory_gib"]["memory"] > 0
    assert found["steps_per_day"] > 0
    if name == "svd_mv_lora.yaml":
        assert found["parameters_million"] == pytest.approx(1526, abs=5)
        assert found["trained_million"] < 20
        assert found["memory_gib"]["moments"] < 0.2
        assert found["memory_gib"]["beside"] == pytest.approx(4 * 732e6 / 2**30, rel=0.01)  # image encoder, autoencoder
        assert "GB suffice, " in found["card"]


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


def test_what_is_beside_the_unet_is_what_a_run_has_on_the_device():
    from finetune.read_config import load_config
    from mv3d.model.checkpoints import load_model

    found = describe(load_config(Path("configs/mini_lora.yaml")))
    model = load_model("mini")
    frozen = sum(p.numel() for n in (model.vae, model.image_encoder, model.volume) for p in n.parameters())
    lpips = 2_469_696 + 1152  # AlexNet's convolutions, and the linear layers
    assert found["memory_gib"]["beside"] == pytest.approx(4 * (frozen + lpips) / 2**30, abs=1e-3)


@pytest.mark.slow
def test_the_card_is_one_that_holds_it_and_processes_share_the_batch(capsys):
    def dry_run(*more: str) -> dict:
        assert main(["configs/mini.yaml", "--dry-run", *more]) == 0
        return json.loads(capsys.readouterr().out)["estimate"]

    one, two = dry_run(), dry_run("--processes", "2")
    assert two["memory_gib"]["activations"] == pytest.approx(one["memory_gib"]["activations"] / 2, rel=0.05)
    assert two["memory_gib"]["gradients"] == pytest.approx(
        2 * one["memory_gib"]["gradients"], abs=2e-3
    )  # DDP's buckets
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

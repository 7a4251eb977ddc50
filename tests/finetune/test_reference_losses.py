"""Every recipe's losses and pixels, recorded when small and large models still had trainers of their own.

Those of the toy model (edm, decoded) were recorded anew when the coarse network took the coarse volume's place in it.

A refactoring changes none of these numbers. They are not compared by their bits, since instruction sets round sums
differently: without AVX, losses are up to 6e-6 off, norms of gradients 8e-5, and pixels 2e-4. Hence the learning rate
too, with which weights hardly move: Adam steps as far where a gradient is rounding alone as it does elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.__main__ import main
from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.model.checkpoints import OrbitModel, load_model
from mv3d.model.lora import LoraUse, with_loras
from mv3d.model.lora_file import LORA_FILE
from tests.finetune.conftest import NUM_VIEWS, SIZE_PX, make_ball

EXPECTED: dict[str, dict[str, list[float]]] = json.loads(Path(__file__).with_name("reference_losses.json").read_text())
STEPS = 3
BARELY = "learning_rate=1e-8"


def losses_of(log: Path) -> list[float]:
    """Loss and norm of the gradient of every step."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line[name] for name in ("loss", "grad_norm") for line in lines if "loss" in line]


def pixels_of(model: OrbitModel, num_views: int = NUM_VIEWS) -> list[float]:
    """Mean colours and alpha of the second view, and one pixel of the third."""
    small = replace(model, facts=replace(model.facts, resolution_px=SIZE_PX))
    ball = make_ball(5)[0].resized(small.output_px)
    settings = GenerateSettings(num_views=num_views, elevation_deg=ball.cameras[0].elevation_deg, steps=2, seed=3)
    frames = generate_orbit(ball.frames[0], small, settings).frames
    middle = frames.shape[1] // 2
    return [*frames[1].mean(axis=(0, 1)).tolist(), *frames[2, middle, middle].tolist()]


def check(log: Path, name: str) -> None:
    found, expected = losses_of(log), EXPECTED[name]["losses"]
    np.testing.assert_allclose(found[:STEPS], expected[:STEPS], rtol=3e-5, atol=1e-5)
    np.testing.assert_allclose(found[STEPS:], expected[STEPS:], rtol=5e-4, atol=1e-5)


def check_pixels(model: OrbitModel, name: str) -> None:
    np.testing.assert_allclose(pixels_of(model), EXPECTED[name]["pixels"], atol=1e-3)


MINI = {
    "edm": ("lpips_weight=0", "condition_dropout=0.5"),
    "decoded": (
        "lpips_weight=0.5", "pixel_weight=2", "discriminator_weight=0.15", "train_decoder=true", "lpips_frames=3",
        "inputs_per_orbit=2",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MINI))
def test_the_small_model_is_trained_as_ever(config_file: Path, tmp_path: Path, rendered: Path, large: Path, name: str):
    settings = [f"diffusion.{setting}" for setting in MINI[name]]
    if name == "decoded":
        settings += [f"data={large}", "autoencoder.upscale_factor=2", "autoencoder.decoder_sees_views=true"]
    settings += [f"{stage}.loop.steps=0" for stage in ("autoencoder", "coarse")]
    settings += [f"diffusion.loop.steps={STEPS}", f"diffusion.loop.{BARELY}", "diffusion.loop.warmup_steps=1"]
    assert main([str(config_file), *(word for text in settings for word in ("--set", text))]) == 0
    run = tmp_path / "run"
    check(run / "diffusion/log.jsonl", name)
    check_pixels(load_model(run / "model"), name)


LORA = "lora: {rank: 2, alpha: 2, targets: temporal_attention}\n"
ADAPTED: dict[str, tuple[str, ...]] = {
    "svd_mv": ("{}", ""),
    "sv3d_u": ("{cond_aug_only: true, poses: false, input_last: true}", ""),
    "sv3d_p": ("{cond_aug_only: true, poses: true, input_last: true}", ""),
    "lora": ("{}", LORA),
    "distilled": ("{}", "distillation: {num_steps: 2, teacher_steps: 6}\n"),
    "distilled_lora": ("{}", LORA + "distillation: {num_steps: 2, teacher_steps: 6}\n"),
    "new_unet": ("{poses: true}", "channels: [32, 32]\nheads: [1, 1]\nsampling_steps: 3\n", "init: random\n"),
    "clips": ("{poses: false}", "", "turns: false\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ADAPTED))
def test_a_base_is_adapted_as_ever(write_recipe: Callable[..., Path], svd_folder: Path, tmp_path: Path, name: str):
    conditions, more, *top = ADAPTED[name]
    settings = [f"diffusion.loop.steps={STEPS}", f"diffusion.loop.{BARELY}"]
    recipe = write_recipe(conditions=conditions, more=more, top="".join(top))
    assert main([str(recipe), *(word for text in settings for word in ("--set", text))]) == 0
    run = tmp_path / "run"
    check(run / "diffusion/log.jsonl", name)
    if name.startswith(("distilled", "clips")):  # of the base's clips no cameras are known
        return
    lora = run / "lora" / LORA_FILE
    model = with_loras(load_model(svd_folder), [LoraUse(lora)]) if lora.is_file() else load_model(run / "model")
    check_pixels(model, name)


@pytest.mark.slow
def test_the_bundled_model_is_adapted_as_ever(write_recipe: Callable[..., Path], tmp_path: Path):
    """A base with coarse views, whose clips begin where these were made from."""
    settings = [
        "base=mini",
        "resolution_px=64",
        "diffusion.cache.variants=1",
        f"diffusion.loop.steps={STEPS}",
        f"diffusion.loop.{BARELY}",
    ]
    recipe = write_recipe(more=LORA)
    assert main([str(recipe), *(word for text in settings for word in ("--set", text))]) == 0
    check(tmp_path / "run/diffusion/log.jsonl", "mini_lora")

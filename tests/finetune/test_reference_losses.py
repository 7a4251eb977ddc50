"""Every recipe's losses and pixels, recorded when small and large models still had trainers of their own.

A refactoring changes none of these numbers. They are compared to a few units of the sixth digit, and not by their bits:
instruction sets round sums differently. Hence the learning rate too, with which weights hardly move: Adam steps as far
where a gradient is rounding alone as it does elsewhere.
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
from mv3d.model.lora import LORA_FILE, LoraUse, with_loras
from tests.finetune.conftest import NUM_VIEWS, SIZE_PX, make_ball

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


def check(found: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


MINI = {
    "edm": ("lpips_weight=0", "condition_dropout=0.5"),
    "decoded": (
        "lpips_weight=0.5", "pixel_weight=2", "discriminator_weight=0.15", "train_decoder=true", "lpips_frames=3",
        "inputs_per_orbit=2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MINI))
def test_the_small_model_is_trained_as_ever(config_file: Path, tmp_path: Path, rendered: Path, large: Path, name: str):
    settings = [f"diffusion.{setting}" for setting in MINI[name]]
    if name == "decoded":
        settings += [f"data={large}", "autoencoder.upscale_factor=2", "autoencoder.decoder_sees_views=true"]
    settings += [f"{stage}.loop.steps=0" for stage in ("autoencoder", "volume")]
    settings += [f"diffusion.loop.steps={STEPS}", f"diffusion.loop.{BARELY}", "diffusion.loop.warmup_steps=1"]
    assert main([str(config_file), *(word for text in settings for word in ("--set", text))]) == 0
    run = tmp_path / "run"
    check(losses_of(run / "diffusion/log.jsonl"), EXPECTED[name][0])
    check(pixels_of(load_model(run / "model")), EXPECTED[name][1])


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


@pytest.mark.parametrize("name", list(ADAPTED))
def test_a_base_is_adapted_as_ever(write_recipe: Callable[..., Path], svd_folder: Path, tmp_path: Path, name: str):
    conditions, more, *top = ADAPTED[name]
    settings = [f"diffusion.loop.steps={STEPS}", f"diffusion.loop.{BARELY}"]
    recipe = write_recipe(conditions=conditions, more=more, top="".join(top))
    assert main([str(recipe), *(word for text in settings for word in ("--set", text))]) == 0
    run = tmp_path / "run"
    check(losses_of(run / "diffusion/log.jsonl"), EXPECTED[name][0])
    if name.startswith(("distilled", "clips")):  # of the base's clips no cameras are known
        return
    lora = run / "lora" / LORA_FILE
    model = with_loras(load_model(svd_folder), [LoraUse(lora)]) if lora.is_file() else load_model(run / "model")
    check(pixels_of(model), EXPECTED[name][1])


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
    check(losses_of(tmp_path / "run/diffusion/log.jsonl"), EXPECTED["mini_lora"][0])


EXPECTED: dict[str, tuple[list[float], list[float]]] = {
    "edm": (
        [0.9094565, 0.4841279, 0.9398367, 5.802503, 2.867006, 4.71768],
        [0.2837189, 0.2426565, 0.3529397, 0.2629938, 0.5066397, 0.4508117, 0.4323297, 0.7291441],
    ),
    "decoded": (
        [2.956354, 2.630215, 2.614052, 6.303218, 5.984476, 5.92564],
        [0.4468596, 0.3123676, 0.5096738, 0.3885766, 0.5888468, 0.4758683, 0.4545007, 1],
    ),
    "svd_mv": (
        [0.477783, 0.1277286, 0.9051929, 3.120527, 1.975005, 6.992174],
        [0.6434585, 0.5614783, 0.5045727, 1, 0.8119112, 0.6272618, 0.6499002, 1],
    ),
    "sv3d_u": (
        [0.4821642, 0.1281199, 0.9034988, 4.001473, 1.771757, 5.16938],
        [0.6439189, 0.5598283, 0.5042623, 1, 0.6810421, 0.6427271, 0.497023, 1],
    ),
    "sv3d_p": (
        [0.4821642, 0.1281199, 0.9034989, 4.001603, 1.771807, 5.169545],
        [0.6439189, 0.5598283, 0.5042623, 1, 0.6810421, 0.6427271, 0.497023, 1],
    ),
    "lora": (
        [0.477783, 0.1277288, 0.905194, 0.06315214, 0.03523077, 0.1387467],
        [0.6435003, 0.5614848, 0.5045835, 1, 0.8135155, 0.6273415, 0.6506848, 1],
    ),
    "distilled": (
        [0.0205061, 0.0004784283, 0.01145742, 3.138275, 0.00769768, 2.942509],
        [],
    ),
    "distilled_lora": (
        [0.0205061, 0.0004784278, 0.01145731, 0.0482767, 0.0001743888, 0.04532968],
        [],
    ),
    "new_unet": (
        [0.4777829, 0.1277285, 0.9051929, 3.120437, 1.974958, 6.992025],
        [0.6433432, 0.5612229, 0.5050244, 1, 0.8701621, 0.816043, 0.6726466, 1],
    ),
    "clips": (
        [0.4786339, 0.1277132, 0.8996791, 3.107445, 1.961695, 7.018518],
        [],
    ),
    "mini_lora": (
        [0.4554505, 0.7237006, 0.7091316, 0.159787, 0.1839738, 0.07939205],
        [],
    ),
}

"""Distillation to few steps: where it ends, what it leaves alone, and that its result says how it is sampled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from finetune.__main__ import main
from finetune.consistency import consistency_loss
from finetune.read_config import load_config
from finetune.stages.diffusion import DiffusionTraining
from mv3d.generate import GenerateSettings, generate_clip
from mv3d.model.checkpoints import load_model
from mv3d.model.lora import LoraUse, with_loras
from mv3d.model.lora_file import LORA_FILE, read_lora
from mv3d.model.sampling import karras_sigmas, sample_consistency, sample_euler
from tests.finetune.test_adapt import LORA, equal, weights

DISTILL = "distillation: {num_steps: 2, teacher_steps: 6}\n"
MEAN, DEVIATION = 1.5, 0.5


def gaussian_teacher(noisy: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of data drawn from N(MEAN, DEVIATION^2)."""
    variance = sigma.view(-1, 1, 1, 1, 1) ** 2
    return (DEVIATION**2 * noisy + variance * MEAN) / (DEVIATION**2 + variance)


class LinePerLevel(nn.Module):
    """A student that can be right: the flow of a Gaussian maps every level to the clean one by a line."""

    def __init__(self, sigmas: Tensor) -> None:
        super().__init__()
        self.sigmas = sigmas
        self.slope, self.offset = (nn.Parameter(torch.zeros(len(sigmas) - 1)) for _ in range(2))

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        at = (self.sigmas[:-1] - sigma[:, None]).abs().argmin(dim=1)
        slope, offset = (x[at].view(-1, 1, 1, 1, 1) for x in (self.slope, self.offset))
        level = sigma.view(-1, 1, 1, 1, 1)
        return slope * noisy / (level**2 + 1).sqrt() + offset


def test_a_student_reaches_in_one_step_what_its_teacher_reaches_in_many():
    sigmas = karras_sigmas(6, 0.05, 20.0)
    student = LinePerLevel(sigmas)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / 400)
        clean = MEAN + DEVIATION * torch.randn(48, 1, 1, 4, 4, generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        at = torch.arange(48) % 6
        loss = consistency_loss(student, student, gaussian_teacher, clean, noise, sigmas, at)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    noise = torch.randn(64, 1, 1, 4, 4, generator=generator)
    with torch.no_grad():
        many = sample_euler(gaussian_teacher, noise, sigmas)
        once = sample_consistency(student, noise, sigmas[[0, 6]], generator)
        again = sample_consistency(student, noise, sigmas[[0, 2, 4, 6]], generator)
    first_guess = gaussian_teacher(noise * 401**0.5, torch.full((64,), 20.0))
    assert (first_guess - many).abs().mean() > 0.2  # one step of the teacher itself is the mean of all data
    assert (once - many).abs().max() < 0.06
    # With new noise in between the clips are others, of the same distribution: as wide as the teacher's.
    assert again.mean().item() == pytest.approx(MEAN, abs=0.06)
    assert again.std().item() == pytest.approx(many.std().item(), abs=0.06)


def test_at_the_least_noise_the_teachers_last_step_is_the_answer():
    """So a student that begins as its teacher is right there at once, whatever its answers at more noise."""
    sigmas = karras_sigmas(5, 0.05, 20.0)
    clean, noise = torch.randn(5, 2, 3, 4, 4), torch.randn(5, 2, 3, 4, 4)
    loss = consistency_loss(gaussian_teacher, gaussian_teacher, gaussian_teacher, clean, noise, sigmas, torch.arange(5))
    assert loss[4] < 1e-6
    assert (loss[:4] > 1e-3).all()


@pytest.mark.parametrize("more", ["", LORA])
def test_the_teacher_stays_as_it_was_and_only_the_student_learns(write_recipe, more):
    stage = DiffusionTraining(load_config(write_recipe(more=more + DISTILL)))
    distiller, unet = stage._distiller, stage.model.unet
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if parameter.requires_grad and (not more or "lora_B" in name):
                parameter.add_(0.1 * torch.randn_like(parameter))  # as if it had learnt something
    base = load_model(stage._config.base).unet
    inputs = (
        torch.randn(1, 4, 8, 4, 4),
        torch.zeros(1),
        torch.randn(1, 1, 16),
        torch.zeros(1, 3),
        torch.zeros(1, 4, 2),
    )
    with torch.no_grad():
        student, expected = unet(*inputs), base(*inputs)
        with distiller._teaching(unet) as teacher:
            torch.testing.assert_close(teacher(*inputs), expected)
        assert (student - expected).abs().max() > 1e-3
        assert torch.equal(unet(*inputs), student)
    stage.loss(0, torch.Generator().manual_seed(0))[0].backward()
    with_gradient = {name for name, p in unet.named_parameters() if p.grad is not None and p.grad.any()}
    assert with_gradient
    assert all("lora" in name for name in with_gradient) == bool(more)
    stage.close()


@pytest.mark.slow
def test_a_distilled_model_says_how_it_is_sampled(write_recipe, tmp_path):
    once = write_recipe("once", more=DISTILL)
    assert main([str(once)]) == 0
    # Two steps, then two more: the same, bit for bit.
    twice = write_recipe("twice", more=DISTILL)
    assert main([str(twice), "--set", "diffusion.loop.steps=2"]) == 0
    assert main([str(twice)]) == 0
    assert equal(weights(tmp_path / "once"), weights(tmp_path / "twice"))

    model = load_model(tmp_path / "once/model")
    assert (model.facts.num_steps, model.facts.teacher_steps, model.facts.guidance_high) == (2, 6, 1.0)
    assert sampled(model) == [2, 2]  # steps, and estimates: none without the picture
    assert sampled(model, steps=6) == [6, 6]


@pytest.mark.slow
def test_a_distilled_lora_brings_its_steps_unless_it_is_switched_off(write_recipe, tmp_path, svd_folder):
    assert main([str(write_recipe(more=LORA + DISTILL))]) == 0
    path = tmp_path / "run/lora" / LORA_FILE
    assert read_lora(path).facts.sampling["num_steps"] == 2
    base, off, on = (small(load_model(svd_folder)) for _ in range(3))
    off, on = with_loras(off, [LoraUse(path, 0.0)]), with_loras(on, [LoraUse(path)])
    assert sampled(on) == [2, 2]
    assert off.facts.num_steps == base.facts.num_steps == 25
    picture, settings = np.ones((32, 32, 4), dtype=np.float32), GenerateSettings(num_views=4, steps=3)
    np.testing.assert_array_equal(
        generate_clip(picture, off, settings).frames, generate_clip(picture, base, settings).frames
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("distillation: {num_steps: 9, teacher_steps: 6}\n", "num_steps 9: give 1 to teacher_steps, 6"),
        ("distillation: {steps: 4}\n", "did you mean 'num_steps'?"),
    ],
)
def test_a_mistake_is_one_line(write_recipe, capsys, more, message):
    assert main([str(write_recipe(more=more))]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_student_cannot_teach_nor_take_more_steps_than_its_teacher(write_recipe, tmp_path, capsys):
    assert main([str(write_recipe(more=DISTILL))]) == 0
    again = write_recipe("again", more=DISTILL)
    assert main([str(again), "--set", f"base={tmp_path}/run/model"]) == 2
    assert "toy is distilled already" in capsys.readouterr().err
    with pytest.raises(Exception, match="7 sampling steps; this model was distilled to take 1 to 6"):
        sampled(load_model(tmp_path / "run/model"), steps=7)


def small(model):
    return replace(model, facts=replace(model.facts, resolution_px=32))


def sampled(model, steps: int | None = None) -> list[int]:
    """Steps reported, and calls of the network times their clips, of one clip."""
    calls, done = [], []
    handle = model.unet.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    picture = np.ones((32, 32, 4), dtype=np.float32)
    generate_clip(picture, model, GenerateSettings(num_views=4, steps=steps), lambda *at: done.append(at))
    handle.remove()
    return [sum(step > 0 for _, step, _ in done), sum(calls)]

from __future__ import annotations

import pytest
import torch

from mv3d.errors import Mv3dError
from mv3d.model.conditioning import Conditions
from mv3d.model.sampling import from_sv3d_order, guidance_per_frame, guided, karras_sigmas, sample_euler


def test_karras_levels_fall_from_the_largest_through_the_smallest_to_zero():
    sigmas = karras_sigmas(25, 0.002, 700.0)
    assert sigmas.shape == (26,)
    assert sigmas[0] == pytest.approx(700.0)
    assert sigmas[-2] == pytest.approx(0.002)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    # Evenly spaced in sigma^(1/7).
    torch.testing.assert_close(
        sigmas[:-1].double().pow(1 / 7).diff().diff(), torch.zeros(23).double(), atol=1e-6, rtol=0
    )
    assert karras_sigmas(1, 0.002, 700.0).tolist() == pytest.approx([700.0, 0.0])


def test_no_steps_are_refused():
    with pytest.raises(Mv3dError, match="0 sampling steps"):
        karras_sigmas(0, 0.002, 700.0)


def test_euler_follows_the_flow_of_a_gaussian():
    mean, deviation = 3.0, 0.5
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, 4, 8, 8, generator=generator)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert sigma.shape == (2,)
        variance = sigma.view(-1, 1, 1, 1, 1) ** 2
        return (deviation**2 * x + variance * mean) / (deviation**2 + variance)

    # The flow keeps (x - mean) / sqrt(deviation^2 + sigma^2).
    start = noise * (80.0**2 + 1) ** 0.5
    exact = mean + (start - mean) * deviation / (deviation**2 + 80.0**2) ** 0.5
    errors = [
        (sample_euler(denoise, noise, karras_sigmas(steps, 0.002, 80.0)) - exact).abs().max().item()
        for steps in (20, 40, 80, 160)
    ]
    assert errors[-1] < 0.05
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert 1.6 < coarse / fine < 2.4  # first order


def test_euler_reaches_a_known_answer_and_tells_its_steps():
    answer = torch.randn(1, 2, 4, 3, 3)
    steps = []
    result = sample_euler(
        lambda x, sigma: answer, torch.randn_like(answer), karras_sigmas(4, 0.002, 700.0), lambda *at: steps.append(at)
    )
    torch.testing.assert_close(result, answer, rtol=0, atol=1e-4)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_guidance_schedules():
    triangle = guidance_per_frame("triangle", 1.0, 2.5, 21)
    rising = [1 + 0.15 * k for k in range(11)]
    torch.testing.assert_close(triangle, torch.tensor(rising + rising[-2::-1]))
    assert triangle.argmax() == 10
    torch.testing.assert_close(guidance_per_frame("linear", 1.0, 3.0, 5), torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0]))
    assert guidance_per_frame("constant", 1.0, 3.0, 3).tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("input_index", [0, 5])
def test_in_our_order_guidance_is_weakest_at_the_input_view_and_strongest_opposite(input_index):
    scales = from_sv3d_order(guidance_per_frame("triangle", 1.0, 2.5, 21), input_index)
    assert scales[input_index] == 1.0
    assert scales.min() == 1.0
    assert (int(scales.argmax()) - input_index) % 21 in (10, 11)
    # SV3D's first view is the one after the input view.
    torch.testing.assert_close(scales.roll(-input_index - 1), guidance_per_frame("triangle", 1.0, 2.5, 21))


def make_conditions() -> Conditions:
    return Conditions(
        image_latents=torch.ones(2, 4, 3, 3),
        image_embedding=torch.ones(2, 1, 8),
        added_time_ids=torch.full((2, 1), 1e-5),
        poses=torch.rand(2, 3, 2),
    )


@pytest.mark.parametrize(("apart", "clips"), [(False, 4), (True, 2)])
def test_guidance_extrapolates_frame_by_frame(apart, clips):
    def denoiser(noisy, sigma, conditions):
        assert len(noisy) == len(sigma) == len(conditions.poses) == len(conditions.added_time_ids) == clips
        return noisy + conditions.image_latents[:, None] * 2  # +2 with the picture, +0 without

    noisy = torch.randn(2, 3, 4, 3, 3)
    scale = torch.tensor([0.0, 1.0, 2.5])
    result = guided(denoiser, make_conditions(), scale, apart=apart)(noisy, torch.ones(2))
    torch.testing.assert_close(result, noisy + 2 * scale.view(1, 3, 1, 1, 1))


def test_without_guidance_the_unconditional_half_is_not_computed():
    batches = []

    def denoiser(noisy, sigma, conditions):
        batches.append(len(noisy))
        return noisy

    noisy = torch.randn(2, 3, 4, 3, 3)
    assert torch.equal(guided(denoiser, make_conditions(), torch.ones(3))(noisy, torch.ones(2)), noisy)
    assert batches == [2]

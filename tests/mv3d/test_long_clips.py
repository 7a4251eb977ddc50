"""More views than a model makes at once: every clip is of its length, and no seam shows where they meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.model.checkpoints import load_model
from mv3d.model.conditioning import Conditions
from mv3d.model.long_clips import divide_views

SIGMA = torch.ones(1)


def _conditions(num_views: int) -> Conditions:
    turns = torch.arange(num_views) / num_views
    poses = torch.stack([turns, turns], dim=-1)[None]
    return Conditions(torch.zeros(1, 4, 2, 2), torch.zeros(1, 1, 8), torch.zeros(1, 1), poses)


@pytest.mark.parametrize("num_views", [32, 84, 101, 200, 401])
def test_clips_are_of_the_models_length_and_hold_every_view(num_views):
    long = divide_views(num_views, 21)
    assert long is not None
    assert {len(clip) for clip in long.clips} == {21}
    assert all(clip[0] == 0 for clip in long.clips)
    assert {view for clip in long.clips for view in clip} == set(range(num_views))
    # Within a clip, views stand about as far apart as in a single one.
    steps = np.concatenate([np.diff(clip[2:]) for clip in long.clips if clip[1] < num_views // 2])
    assert abs(steps * 21 / num_views - 1).max() < 0.7
    assert len(long.clips) < 2 * num_views / 20 + 4


def test_what_a_model_makes_at_once_stays_one_clip():
    assert divide_views(21, 21) is None
    assert divide_views(31, 21) is None
    assert divide_views(9, 2) is None  # clips of one view beside the picture would know of no other


@pytest.mark.parametrize("num_views", [84, 101, 200])
def test_no_seam_shows_where_clips_meet(num_views):
    """A model whose answer depends on the place in the clip, as all do: alone it jumps from slot to slot."""
    long = divide_views(num_views, 21)
    assert long is not None

    def denoise_clip(noisy: torch.Tensor, sigma: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        assert conditions.poses is not None
        slots = torch.cos(2 * torch.pi * torch.arange(noisy.shape[1]) / 20)
        return (slots + torch.cos(2 * torch.pi * conditions.poses[0, :, 0])).view(1, -1, 1, 1, 1).expand_as(noisy)

    noisy = torch.zeros(1, num_views, 4, 2, 2)
    views = long.mixed(_conditions(num_views), denoise_clip)(noisy, SIGMA)[0, 1:, 0, 0, 0]
    steps = (views - views.roll(1)).abs()  # around the end, too
    even = 4 * torch.pi / num_views  # of a smooth curve through the same values
    assert steps.max() < 2 * even
    naive = torch.cos(2 * torch.pi * (torch.arange(num_views - 1) * 20 // (num_views - 1) + 1) / 20)
    assert (naive - naive.roll(1)).abs().max() > 2 * even  # what the first set of clips alone would jump


def test_noise_is_alike_where_views_are_and_of_unit_variance():
    long = divide_views(200, 21)
    assert long is not None
    noise = long.noise(4, 16, 16, torch.Generator().manual_seed(0))
    assert noise.shape == (1, 200, 4, 16, 16)
    assert noise.std() == pytest.approx(1, abs=0.02)
    alike = torch.nn.functional.cosine_similarity(noise[0, 1:].flatten(1), noise[0, 1:].roll(1, 0).flatten(1))
    assert alike.min() > 0.8
    apart = torch.nn.functional.cosine_similarity(noise[0, 50].flatten(), noise[0, 100].flatten(), dim=0)
    assert abs(apart) < 0.1


def test_an_orbit_of_many_views_is_made_in_clips(tiny_model, monkeypatch):
    model = load_model(str(tiny_model), "cpu")
    lengths = []
    denoise = type(model.unet).forward

    def forward(self, noisy, *args, **more):
        lengths.append(noisy.shape[1])
        return denoise(self, noisy, *args, **more)

    monkeypatch.setattr(type(model.unet), "forward", forward)
    picture = np.ones((32, 32, 4), dtype=np.float32)
    picture[:6, :, 3] = 0
    orbit = generate_orbit(picture, model, GenerateSettings(12, 12.0, steps=1))
    assert set(lengths) == {5}
    assert orbit.frames.shape == (12, 32, 32, 4)
    np.testing.assert_array_equal(orbit.frames[0], picture)
    again = generate_orbit(picture, model, GenerateSettings(12, 12.0, steps=1))
    np.testing.assert_array_equal(again.frames, orbit.frames)

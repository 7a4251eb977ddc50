"""What other trainers of this family got wrong, and is not read off a loss curve.

The others are tested where they belong: the loss weight and one noise level per clip in tests/mv3d/test_denoiser.py,
ids and the picture's latents in test_adapt.py, guidance and scores in test_validation.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune import encode
from finetune.data import load_frames
from finetune.read_config import load_config
from finetune.stages.diffusion import DiffusionTraining
from mv3d.model.alpha import to_autoencoder
from mv3d.orbit import load_orbit


@pytest.fixture
def seen(write_recipe):
    """Makes a stage and gives what its network is asked in one step: sample, poses, and the batch's samples."""

    def see(*settings: str) -> tuple[torch.Tensor, torch.Tensor, list]:
        stage = DiffusionTraining(load_config(write_recipe(), list(settings)))
        asked = []
        stage.model.unet.register_forward_pre_hook(lambda module, args: asked.append(args))
        loss, _ = stage.loss(0, torch.Generator().manual_seed(0))
        loss.backward()
        assert all(p.grad is not None for p in stage.network.parameters())  # all weights are trained where all are said
        samples = stage.clips.samples(0)
        stage.close()
        sample, _, _, _, poses = asked[0]
        return sample, poses, samples

    return see


def test_each_clip_is_told_its_own_elevation(seen, rendered):
    _, poses, samples = seen()
    elevations = [load_orbit(rendered / s.facts["object_id"] / "0").cameras[0].elevation_deg for s in samples]
    assert elevations[0] != pytest.approx(elevations[1])  # or a constant would pass
    for polar, elevation in zip(poses[:, :, 0], elevations, strict=True):
        np.testing.assert_allclose(polar, math.radians(90 - elevation), atol=1e-6)


@pytest.mark.parametrize(("dropout", "hidden"), [("0.0", 0), ("1.0", 2)])
def test_the_picture_is_hidden_as_often_as_asked(seen, dropout, hidden):
    sample, poses, _ = seen(f"diffusion.condition_dropout={dropout}")
    assert sum(not clip[:, 4:].any() for clip in sample) == hidden
    assert poses[:, 1:].any()  # what is asked for stays


def test_the_pictures_noise_is_gaussian_of_the_level_that_is_told(write_recipe, monkeypatch):
    recipe = load_config(write_recipe(), ["diffusion.cond_noise_mean=-1.0", "diffusion.cond_noise_std=0.5"])
    stage = DiffusionTraining(recipe)
    stage.close()
    given, really_encode = [], encode.encode
    monkeypatch.setattr(encode, "encode", lambda vae, pictures: given.append(pictures) or really_encode(vae, pictures))
    entry = stage.clips.used.training[0]
    frames = load_frames(entry, 32)
    orbits = replace(stage.clips.orbits, entries=[entry] * 8, load=lambda _: frames)
    encoder = encode.OrbitEncoder(stage.model, recipe, orbits)
    samples = [encoder.sample(k, 0) for k in range(8)]
    level = torch.tensor([sigma for sample in samples for sigma in sample.facts["cond_aug"]])
    noise = (torch.cat(given) - to_autoencoder(frames.rgba, 3).repeat(8, 1, 1, 1)) / level.view(-1, 1, 1, 1)
    assert noise.mean().abs() < 0.02
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert (noise.abs() > 2).float().mean().item() == pytest.approx(0.0455, abs=0.005)  # a uniform one has none there
    assert level.log().mean().item() == pytest.approx(-1, abs=0.3)  # 32 draws
    assert level.log().std().item() == pytest.approx(0.5, abs=0.2)

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from jaxtyping import TypeCheckError

from mv3d.cameras import static_orbit
from mv3d.errors import Mv3dError
from mv3d.model.conditioning import Conditions, clip_pixels, drop_conditions, poses_of
from mv3d.model.denoiser import Denoiser, sample_sigmas


class FakeUNet:
    """Answers with ``respond(sample, timestep)`` and keeps what it was asked."""

    dtype = torch.float32

    def __init__(
        self, respond, coarse_channels: int = 0, *, coarse_mean: bool = False, input_last: bool = False
    ) -> None:
        self.config = {"coarse_channels": coarse_channels, "coarse_mean": coarse_mean, "input_last": input_last}
        self.respond = respond

    def __call__(self, sample, timestep, context, ids, pose):
        self.asked = SimpleNamespace(sample=sample, timestep=timestep, context=context, ids=ids, pose=pose)
        return self.respond(sample, timestep)


def make_conditions(batch: int = 2, frames: int = 3, *, coarse: bool = False) -> Conditions:
    return Conditions(
        image_latents=torch.randn(batch, 4, 5, 5),
        image_embedding=torch.randn(batch, 1, 8),
        added_time_ids=torch.full((batch, 1), 1e-5),
        poses=torch.rand(batch, frames, 2),
        coarse_latents=torch.randn(batch, frames, 4, 5, 5) if coarse else None,
    )


@pytest.fixture
def clip() -> SimpleNamespace:
    torch.manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 5, 5), torch.randn(2, 3, 4, 5, 5)
    sigma = torch.tensor([0.1, 20.0])
    return SimpleNamespace(latents=latents, noise=noise, sigma=sigma, level=sigma.view(-1, 1, 1, 1, 1))


def test_a_perfect_network_gives_the_clean_clip(clip):
    # The velocity of x0 + sigma noise, scaled to unit variance: v = (noise - sigma x0) / sqrt(1 + sigma^2).
    velocity = (clip.noise - clip.level * clip.latents) / (1 + clip.level**2).sqrt()
    # D = c_skip x + c_out F with c_out < 0, so the network predicts v itself.
    denoiser = Denoiser(FakeUNet(lambda sample, timestep: velocity))
    noisy = clip.latents + clip.level * clip.noise
    torch.testing.assert_close(denoiser(noisy, clip.sigma, make_conditions()), clip.latents, rtol=0, atol=5e-6)
    assert denoiser.loss(clip.latents, clip.sigma, clip.noise, make_conditions()).max() < 1e-8


def test_around_the_coarse_views_only_the_deviation_is_diffused(clip):
    conditions = make_conditions(coarse=True)
    scale = 0.7
    mean = scale * conditions.coarse_latents
    velocity = (clip.noise - clip.level * (clip.latents - mean)) / (1 + clip.level**2).sqrt()
    unet = FakeUNet(lambda sample, timestep: velocity, coarse_channels=4, coarse_mean=True)
    denoiser = Denoiser(unet, scale)
    noisy = clip.latents + clip.level * clip.noise
    torch.testing.assert_close(denoiser(noisy, clip.sigma, conditions), clip.latents, rtol=0, atol=5e-6)
    torch.testing.assert_close(unet.asked.sample[:, :, :4], (noisy - mean) / (1 + clip.level**2).sqrt())

    silent = FakeUNet(lambda sample, timestep: torch.zeros(2, 3, 4, 5, 5), coarse_channels=4, coarse_mean=True)
    far = torch.tensor([1e4, 1e4])  # of pure noise the best guess of a network that knows nothing is the coarse views
    guess = Denoiser(silent, scale)(mean + 1e4 * clip.noise, far, conditions)
    torch.testing.assert_close(guess, mean, rtol=0, atol=1e-3)


def test_the_loss_is_the_unweighted_error_of_the_network(clip):
    velocity = (clip.noise - clip.level * clip.latents) / (1 + clip.level**2).sqrt()
    answer = torch.randn_like(velocity)
    loss = Denoiser(FakeUNet(lambda sample, timestep: answer)).loss(
        clip.latents, clip.sigma, clip.noise, make_conditions()
    )
    assert loss.shape == (2,)
    torch.testing.assert_close(loss, (answer - velocity).square().mean(dim=(1, 2, 3, 4)), rtol=1e-4, atol=0)


def test_the_loss_weight_is_one_plus_sigma_squared_over_sigma_squared(clip):
    denoiser = Denoiser(FakeUNet(lambda sample, timestep: torch.zeros(2, 3, 4, 5, 5)))
    denoised = (clip.latents + clip.level * clip.noise) / (1 + clip.level**2)
    by_hand = [
        (1 + s**2) / s**2 * (d - x).square().mean() for s, d, x in zip(clip.sigma, denoised, clip.latents, strict=True)
    ]
    loss = denoiser.loss(clip.latents, clip.sigma, clip.noise, make_conditions())
    torch.testing.assert_close(loss, torch.stack(by_hand), rtol=1e-4, atol=0)


def test_the_network_sees_scaled_noise_the_picture_and_the_coarse_views(clip):
    unet = FakeUNet(lambda sample, timestep: sample[:, :, :4], coarse_channels=4)
    conditions = make_conditions(coarse=True)
    noisy = clip.latents + clip.level * clip.noise
    Denoiser(unet)(noisy, clip.sigma, conditions)
    torch.testing.assert_close(unet.asked.sample[:, :, :4], noisy / (1 + clip.level**2).sqrt())
    for frame in range(3):
        assert torch.equal(unet.asked.sample[:, frame, 4:8], conditions.image_latents)
    assert torch.equal(unet.asked.sample[:, :, 8:], conditions.coarse_latents)
    torch.testing.assert_close(unet.asked.timestep, clip.sigma.log() / 4)
    assert torch.equal(unet.asked.pose, conditions.poses)


def test_one_noise_level_per_clip(clip):
    denoiser = Denoiser(FakeUNet(lambda sample, timestep: sample[:, :, :4]))
    with pytest.raises((AssertionError, TypeCheckError), match="one noise level per clip|parameter 'sigma'"):
        denoiser(clip.latents, torch.ones(2 * 3), make_conditions())
    denoiser(clip.latents, clip.sigma, make_conditions())
    assert denoiser.unet.asked.timestep.shape == (2,)


@pytest.mark.parametrize("coarse_channels", [0, 4])
def test_coarse_views_are_given_where_they_are_wanted_and_only_there(clip, coarse_channels):
    denoiser = Denoiser(FakeUNet(lambda sample, timestep: sample[:, :, :4], coarse_channels))
    with pytest.raises(Mv3dError, match="coarse views"):
        denoiser(clip.latents, clip.sigma, make_conditions(coarse=not coarse_channels))


def test_sigmas_are_log_normal_and_seeded():
    draw = [sample_sigmas(20_000, 0.7, 1.6, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*draw)
    assert draw[0].shape == (20_000,)
    assert draw[0].log().mean() == pytest.approx(0.7, abs=0.05)
    assert draw[0].log().std() == pytest.approx(1.6, abs=0.05)


def test_dropped_clips_lose_what_they_saw_and_keep_what_they_were_asked():
    conditions = make_conditions(coarse=True)
    dropped = drop_conditions(conditions, torch.tensor([True, False]))
    for name in ("image_latents", "image_embedding", "coarse_latents"):
        before, after = getattr(conditions, name), getattr(dropped, name)
        assert not after[0].any()
        assert torch.equal(after[1], before[1])
    assert dropped.poses is conditions.poses
    assert dropped.added_time_ids is conditions.added_time_ids
    nothing = conditions.without_image()
    assert not nothing.image_latents.any()
    assert not nothing.coarse_latents.any()
    assert not nothing.image_embedding.any()


def test_angles_and_ids_keep_their_digits_in_half_precision():
    moved = make_conditions(coarse=True).to("cpu", torch.float16)
    assert moved.image_latents.dtype == moved.coarse_latents.dtype == moved.image_embedding.dtype == torch.float16
    assert moved.poses.dtype == moved.added_time_ids.dtype == torch.float32


def test_poses_are_absolute_polar_and_relative_azimuth():
    poses = poses_of(static_orbit(4, 30.0, size_px=32), input_index=1)
    expected = torch.deg2rad(torch.tensor([[60.0, 270.0], [60.0, 0.0], [60.0, 90.0], [60.0, 180.0]]))
    torch.testing.assert_close(poses, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(50, 71), (32, 32), (20, 24)])
def test_pictures_are_resized_for_clip_as_svd_does(height, width):
    picture = torch.rand(2, 3, height, width)
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    )
    stock = _resize_with_antialiasing(picture * 2 - 1, (32, 32))
    torch.testing.assert_close(clip_pixels(picture, 32) * std + mean, (stock + 1) / 2, rtol=0, atol=2e-6)
    # SVD was trained behind kornia's, of which diffusers has a copy.
    resize = pytest.importorskip("kornia.geometry.transform").resize
    trained = resize(picture * 2 - 1, (32, 32), interpolation="bicubic", align_corners=True, antialias=True)
    torch.testing.assert_close(clip_pixels(picture, 32) * std + mean, (trained + 1) / 2, rtol=0, atol=2e-6)

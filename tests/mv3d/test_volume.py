"""The coarse volume's geometry: its rays and projections are the project's cameras, its two renderers agree."""

from __future__ import annotations

from math import radians, sin

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from hypothesis import given, settings
from hypothesis import strategies as st

from mv3d.cameras import Camera, static_orbit
from mv3d.model.alpha import from_autoencoder, to_autoencoder
from mv3d.model.autoencoder import RgbaAutoencoder, decode_latents, encode_frames
from mv3d.model.volume import CoarseVolume, CoarseVolumeConfig, DensityField, Rays, make_rays

CONFIG = CoarseVolumeConfig(picture_px=32, grid_size=8, image_channels=(8, 16), grid_channels=(8, 16))


@pytest.fixture(scope="module")
def network() -> CoarseVolume:
    torch.manual_seed(0)
    return CoarseVolume(CONFIG).eval()


def _disc_picture(radius: float = 0.6) -> torch.Tensor:
    axis = (torch.arange(32) + 0.5) / 16 - 1
    inside = (axis[:, None] ** 2 + axis[None] ** 2 < radius**2).float()
    rgb = torch.stack([axis[None].expand(32, 32), axis[:, None].expand(32, 32), torch.zeros(32, 32)]) / 2 + 0.5
    return torch.cat([rgb, inside[None]])[None]


def _field(picture: torch.Tensor, elevation_deg: float, density: float, source: int) -> DensityField:
    """A field of even density whose colour comes from one of the three sources."""
    appearance = torch.zeros(1, 8, 8, 8, 8)
    appearance[:, 5 + source] = 30.0
    return DensityField(
        torch.full((1, 1, 16, 16, 16), density), appearance, picture, torch.tensor([radians(elevation_deg)])
    )


@settings(max_examples=25, deadline=None)
@given(st.floats(-60, 60), st.floats(0.5, 5.0))
def test_projection_is_the_cameras_projection(elevation_deg: float, radius: float):
    network = CoarseVolume(CONFIG)
    camera = Camera.looking_at_origin(0, elevation_deg, radius, size_px=64)
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    pixels, _ = camera.project(points * radius * sin(radians(camera.fov_deg) / 2))  # frame radii to world units
    uv = network._project(torch.from_numpy(points)[None], torch.tensor([radians(elevation_deg)], dtype=torch.float64))
    assert np.allclose((uv[0].numpy() + 1) * 32, pixels, atol=1e-6)


def test_rays_do_not_depend_on_the_cameras_distance():
    near, far = (make_rays(static_orbit(5, 20, radius, size_px=64), 16) for radius in (1.5, 4.0))
    assert torch.allclose(near.origins, far.origins, atol=1e-6)
    assert torch.allclose(near.directions, far.directions, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.floats(-60, 60))
def test_colour_of_what_the_picture_shows_is_the_pictures(elevation_deg: float):
    """Points taken to look as the picture does have the colour of the pixels they project to."""
    network = CoarseVolume(CONFIG)
    field = _field(_disc_picture(), elevation_deg, density=0.0, source=1)
    points = (torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.8
    camera = Camera.looking_at_origin(0, elevation_deg, size_px=32)
    pixels, _ = camera.project(points[0].numpy() * camera.radius * sin(radians(camera.fov_deg) / 2))
    colour = network.colour(field, points)[0].T
    assert np.allclose(colour[:, :2].numpy(), pixels / 32, atol=1e-4)  # the picture's red and green are its x and y


@torch.no_grad()
def test_nothing_is_where_the_picture_shows_background(network: CoarseVolume):
    field = _field(torch.zeros(1, 4, 32, 32), 12, 10.0, 0)
    rays = make_rays(static_orbit(4, 12, size_px=64), 16)
    assert network.render(field, Rays(rays.origins[None], rays.directions[None]), 16).max() == 0


@torch.no_grad()
def test_a_mirrored_picture_has_a_mirrored_field(network: CoarseVolume):
    picture, elevation = _disc_picture(), torch.tensor([0.2])
    picture[:, :3, :, 16:] *= 0.3
    points = torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    mirrored = points * torch.tensor([-1.0, 1, 1])
    one, other = network.flip_averaged(picture, elevation), network.flip_averaged(picture.flip(-1), elevation)
    torch.testing.assert_close(network.colour(one, points), network.colour(other, mirrored), atol=1e-3, rtol=0)
    logits, flipped = network.occupancy_logits(one, points), network.occupancy_logits(other, mirrored)
    torch.testing.assert_close(logits, flipped, atol=1e-3, rtol=0)
    plain = network.occupancy_logits(network(picture, elevation), points)
    assert (logits - plain).abs().max() > 0.01  # which alone does not do so


def test_gradients_reach_every_parameter(network: CoarseVolume):
    rays = make_rays(static_orbit(2, 15, size_px=64), 8)
    field = network(_disc_picture(), torch.tensor([radians(15)]))
    output = network.render(field, Rays(rays.origins[None], rays.directions[None]), 12)
    (output[:, :, :3] * output[:, :, 3:]).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    network.zero_grad()


def test_autoencoder_frames_come_back():
    rgba = torch.rand(3, 4, 8, 8)
    rgba[:, 3] = rgba[:, 3] * 0.9 + 0.1
    assert torch.allclose(from_autoencoder(to_autoencoder(rgba, 4)), rgba, atol=1e-4)
    on_white = from_autoencoder(to_autoencoder(rgba, 3))
    assert torch.equal(on_white[:, 3], torch.ones(3, 8, 8))


def test_svds_own_autoencoder_takes_and_gives_frames():
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), latent_channels=4, layers_per_block=1, down_block_types=("DownEncoderBlock2D",) * 2
    ).eval()
    with torch.no_grad():
        latents = encode_frames(vae, torch.rand(3, 4, 16, 16))
        frames = decode_latents(vae, latents)
    assert latents.shape == (3, 4, 8, 8)
    assert frames.shape == (3, 4, 16, 16)
    assert torch.equal(frames[:, 3], torch.ones(3, 16, 16))


def test_untrained_autoencoder_gives_mean_colours_back():
    torch.manual_seed(0)
    vae = RgbaAutoencoder(block_out_channels=(8, 8, 8, 8), latent_channels=4).eval()
    rgba = torch.rand(2, 4, 1, 1).clamp(min=0.2).expand(-1, -1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(decode_latents(vae, encode_frames(vae, rgba)), rgba, atol=0.02)
        empty = encode_frames(vae, torch.zeros(1, 4, 32, 32))
    assert empty.abs().max() < 0.2

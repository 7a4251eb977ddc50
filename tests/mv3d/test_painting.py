"""Coarse views at full size: they show the picture's own pixels, and a decoder may see them."""

from __future__ import annotations

from math import radians
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mv3d.cameras import static_orbit
from mv3d.generate import coarse_sources
from mv3d.model.autoencoder import RgbaAutoencoder, decode, from_autoencoder, sees_views, to_autoencoder
from mv3d.model.checkpoints import _make_vae, load_module
from mv3d.model.painting import paint
from mv3d.model.volume import CoarseVolume, CoarseVolumeConfig, Field, Rays, make_rays
from mv3d.model.weights import save_module

ELEVATION_DEG = 12.0
CONFIG = CoarseVolumeConfig(picture_px=32, grid_size=8, image_channels=(8, 16), grid_channels=(8, 16))


def _chequered_disc(size_px: int, cell_px: int = 2) -> Tensor:
    """(4, S, S): fine chequers that no view of 16 px can show."""
    axis = (torch.arange(size_px) + 0.5) / size_px * 2 - 1
    inside = (axis[:, None] ** 2 + axis[None] ** 2 < 0.5).float()
    cells = torch.arange(size_px) // cell_px
    grey = ((cells[:, None] + cells[None]) % 2).float() * 0.6 + 0.2
    return torch.stack([grey, 1 - grey, grey * 0.5, inside])


def _sources(picture: Tensor, source: int, num_views: int, size_px: int) -> Tensor:
    """What is rendered of a solid field whose colours all come from one of three sources, (V, 10, s, s)."""
    cameras = static_orbit(num_views, ELEVATION_DEG, size_px=size_px)
    return CoarseVolume(CONFIG).render_views(_field(picture, source), cameras, size_px, num_samples=64)


def _field(picture: Tensor, source: int) -> Field:
    appearance = torch.zeros(1, 8, 8, 8, 8)
    appearance[:, 5 + source] = 30.0
    seen = F.avg_pool2d(picture[None], picture.shape[-1] // 32)
    return Field(torch.full((1, 1, 16, 16, 16), 20.0), appearance, seen, torch.tensor([radians(ELEVATION_DEG)]))


@pytest.mark.parametrize("source", [1, 2])
def test_the_input_view_painted_is_the_picture(source: int):
    """Rendered at 16 px it still shows chequers of 2 px at 64: they are the picture's, not the rendering's."""
    picture = _chequered_disc(64)
    sources = _sources(picture, source, num_views=1, size_px=16)
    core = slice(16, 48)
    painted = from_autoencoder(paint(sources, picture, 64)[:, :4])[0]
    assert (painted[:, core, core] - picture[:, core, core]).abs().mean() < 0.05
    blurred = F.avg_pool2d(picture[None], 4)[0]
    painted = from_autoencoder(paint(sources, blurred, 64)[:, :4])[0]
    assert (painted[:, core, core] - picture[:, core, core]).abs().mean() > 0.15


def test_painting_at_the_size_of_the_rendering_shows_what_was_rendered():
    axis = torch.linspace(0.1, 0.9, 32)
    picture = torch.stack([axis.expand(32, 32), axis[:, None].expand(32, 32), axis.flip(0).expand(32, 32)])
    picture = torch.cat([picture, torch.ones(1, 32, 32)])
    rays = make_rays(static_orbit(5, ELEVATION_DEG, size_px=24), 24)
    for source in range(3):
        rendered = CoarseVolume(CONFIG).render(_field(picture, source), Rays(*(part[None] for part in rays)), 64)[0]
        painted = paint(_sources(picture, source, num_views=5, size_px=24), picture, 24)
        assert rendered[:, 3].amax() > 0.9
        differences = (painted[:, :4] - to_autoencoder(rendered, 4)).abs()
        assert differences.mean() < 0.01
        assert differences.amax() < 0.1


def test_shares_are_of_the_light_that_is_there():
    torch.manual_seed(0)
    picture = _chequered_disc(32)
    volume = CoarseVolume(CONFIG).eval()
    with torch.no_grad():
        sources = coarse_sources(volume, picture, static_orbit(4, ELEVATION_DEG, size_px=32))
    painted = paint(sources, picture, 32) / 2 + 0.5
    assert painted.shape == (4, 6, 32, 32)
    alpha, shares = painted[:, 3], painted[:, 4:].sum(dim=1)
    assert alpha.amax() > 0.05
    assert (shares <= alpha + 1e-4).all()
    assert shares.amax() > 0.3 * alpha.amax()  # beside what the network itself tells
    empty = paint(torch.zeros(2, 10, 16, 16), picture, 32)
    assert torch.equal(empty[:, :4], to_autoencoder(torch.zeros(2, 4, 32, 32), 4))


@pytest.mark.parametrize("upscale_factor", [1, 2])
def test_an_untrained_decoder_decodes_as_if_it_saw_nothing(upscale_factor: int):
    torch.manual_seed(0)
    vae = RgbaAutoencoder((8, 16, 24, 32), upscale_factor=upscale_factor, decoder_sees_views=True)
    torch.nn.init.normal_(vae.decoder.conv_out.weight, std=0.1)
    size_px = 16 * upscale_factor
    latents, painted = torch.randn(2, 8, 2, 2), torch.rand(2, 6, size_px, size_px) * 2 - 1
    plain = decode(vae, latents)
    assert plain.shape == (2, 4, size_px, size_px)
    torch.testing.assert_close(decode(vae, latents, painted), plain, atol=1e-5, rtol=0)

    # Every layer for views is then taught by the first steps, as it is shown one.
    for layer in vae.decoder.view_projections:
        torch.nn.init.normal_(layer.weight, std=0.1)
    decode(vae, latents, painted).square().sum().backward()
    untaught = [name for name, p in vae.decoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert untaught == []


def test_a_decoder_may_take_a_pixel_as_it_is_painted():
    vae = RgbaAutoencoder((8, 16), decoder_sees_views=True)
    torch.nn.init.ones_(vae.decoder.view_share.bias)
    painted = torch.rand(1, 6, 8, 8) * 2 - 1
    torch.testing.assert_close(decode(vae, torch.randn(1, 8, 4, 4), painted), painted[:, :4], atol=1e-5, rtol=0)


def test_whether_a_decoder_sees_views_is_stored_with_its_weights(tmp_path: Path):
    for sees in (False, True):
        vae = RgbaAutoencoder((8, 16), decoder_sees_views=sees)
        save_module(vae, dict(vae.config) | {"_class_name": "RgbaAutoencoder"}, tmp_path / str(sees))
        loaded = load_module(_make_vae, tmp_path / str(sees))
        assert sees_views(loaded) is sees
        latents = torch.randn(1, 8, 4, 4)
        torch.testing.assert_close(decode(loaded, latents), decode(vae, latents))


def test_colours_reach_over_the_pictures_edge():
    """Where a mean place falls beside the object, its nearest colours are there, and not the hidden ones."""
    picture = _chequered_disc(64)
    picture[:3] = torch.tensor([0.9, 0.2, 0.4])[:, None, None] * picture[3]
    sources = torch.zeros(1, 10, 16, 16)
    sources[:, [0, 4]] = 1
    sources[:, 5:7] = 0.9  # the corner, far from the disc
    painted = paint(sources, picture, 16) / 2 + 0.5
    torch.testing.assert_close(painted[0, :3, 8, 8], torch.tensor([0.9, 0.2, 0.4]), atol=1e-3, rtol=0)

"""A decoder that is shown coarse views beside the latents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mv3d.model.autoencoder import RgbaAutoencoder, decode, is_view_conditioned
from mv3d.model.checkpoints import _make_vae, load_module
from mv3d.model.weights import save_module


@pytest.mark.parametrize("upscale_factor", [1, 2])
def test_an_untrained_decoder_decodes_as_if_it_saw_nothing(upscale_factor: int):
    torch.manual_seed(0)
    vae = RgbaAutoencoder((8, 16, 24, 32), upscale_factor=upscale_factor, decoder_sees_views=True)
    torch.nn.init.normal_(vae.decoder.conv_out.weight, std=0.1)
    size_px = 16 * upscale_factor
    latents, views = torch.randn(2, 8, 2, 2), torch.rand(2, 6, size_px, size_px) * 2 - 1
    views[:, 3] = 1
    plain = decode(vae, latents)
    assert plain.shape == (2, 4, size_px, size_px)
    torch.testing.assert_close(decode(vae, latents, views)[:, :3], plain[:, :3], atol=1e-5, rtol=0)

    # Every layer for views is then taught by the first steps, as it is shown one.
    for layer in vae.decoder.view_projections:
        torch.nn.init.normal_(layer.weight, std=0.1)
    decode(vae, latents, views).square().sum().backward()
    untaught = [name for name, p in vae.decoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert untaught == []


def test_what_is_decoded_has_the_views_shape():
    torch.manual_seed(0)
    vae = RgbaAutoencoder((8, 16), decoder_sees_views=True)
    torch.nn.init.normal_(vae.decoder.conv_out.weight, std=0.1)
    views = torch.rand(1, 6, 8, 8) * 2 - 1
    views[:, :, :4] = torch.tensor([1.0, 1, 1, -1, -1, -1])[:, None, None]  # nothing is there
    views[:, 3, 4:6] = 1
    decoded = decode(vae, torch.randn(1, 8, 4, 4), views)
    torch.testing.assert_close(decoded[:, 3], views[:, 3])
    torch.testing.assert_close(decoded[:, :, :4], views[:, :4, :4])
    assert (decoded - views[:, :4])[:, :3, 4:6].abs().min() > 1e-4


def test_a_decoder_may_take_a_pixel_as_the_view_has_it():
    vae = RgbaAutoencoder((8, 16), decoder_sees_views=True)
    torch.nn.init.ones_(vae.decoder.view_share.bias)
    views = torch.rand(1, 6, 8, 8) * 2 - 1
    torch.testing.assert_close(decode(vae, torch.randn(1, 8, 4, 4), views), views[:, :4], atol=1e-5, rtol=0)


def test_whether_a_decoder_sees_views_is_stored_with_its_weights(tmp_path: Path):
    for sees in (False, True):
        vae = RgbaAutoencoder((8, 16), decoder_sees_views=sees)
        save_module(vae, dict(vae.config) | {"_class_name": "RgbaAutoencoder"}, tmp_path / str(sees))
        loaded = load_module(_make_vae, tmp_path / str(sees))
        assert is_view_conditioned(loaded) is sees
        latents = torch.randn(1, 8, 4, 4)
        torch.testing.assert_close(decode(loaded, latents), decode(vae, latents))

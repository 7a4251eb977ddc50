"""Frames that pass through autoencoders, ours and Stable Video Diffusion's."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder

from mv3d.model.autoencoder import RgbaAutoencoder, decode_latents, encode_frames, from_autoencoder, to_autoencoder


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

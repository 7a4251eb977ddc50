"""Frames to latents and back, for SVD's autoencoder and for the mini model's, which also carries alpha."""

from __future__ import annotations

import torch
from torch import Tensor


def encode_frames(vae: torch.nn.Module, rgba: Tensor) -> Tensor:
    """Encode straight-alpha frames (N, 4, H, W) in [0, 1] to unscaled latents (N, C, H/8, W/8), the posterior's mode.

    The autoencoder sees the picture on white in [-1, 1], and alpha as a fourth channel if it has one.
    """
    return vae.encode(to_autoencoder(rgba, vae.config.in_channels)).latent_dist.mode()


def decode_latents(vae: torch.nn.Module, latents: Tensor) -> Tensor:
    """Decode unscaled latents (N, C, h, w) to straight-alpha frames (N, 4, 8h, 8w) in [0, 1]."""
    return from_autoencoder(vae.decode(latents).sample)


def to_autoencoder(rgba: Tensor, num_channels: int) -> Tensor:
    """Straight alpha (N, 4, H, W) in [0, 1] to what an autoencoder of 3 or 4 channels reads, in [-1, 1]."""
    alpha = rgba[:, 3:]
    on_white = rgba[:, :3] * alpha + (1 - alpha)
    return torch.cat([on_white, alpha], dim=1)[:, :num_channels] * 2 - 1


def from_autoencoder(x: Tensor) -> Tensor:
    """Invert `to_autoencoder`; without an alpha channel the frames come back opaque."""
    x = (x / 2 + 0.5).clamp(0, 1)
    on_white, alpha = x[:, :3], x[:, 3:4] if x.shape[1] == 4 else torch.ones_like(x[:, :1])
    straight = (on_white - (1 - alpha)) / alpha.clamp(min=1e-3)
    return torch.cat([straight.clamp(0, 1), alpha], dim=1)

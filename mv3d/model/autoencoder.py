"""Frames to latents and back, for SVD's autoencoder and for the mini model's, which also carries alpha."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor

_BACKGROUND = (1.0, 1.0, 1.0, -1.0)  # white and transparent, as the autoencoder sees it


class RgbaAutoencoder(AutoencoderKL):
    """SVD's image autoencoder for RGBA frames, with a shortcut past its convolutions for mean colours.

    The first four latent channels carry the mean of each cell's pixels, less the background, and the decoder adds them
    back (residual autoencoding: DC-AE, Chen et al. 2025, section 3.2). What is learnt is only the detail: a small
    network trained for minutes otherwise reproduces shape long before colour. Empty cells are near zero.
    """

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (24, 48, 96, 128),
        latent_channels: int = 8,
        scaling_factor: float = 1.0,
    ) -> None:
        levels = len(block_out_channels)
        super().__init__(
            in_channels=4,
            out_channels=4,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=block_out_channels,
            layers_per_block=1,
            latent_channels=latent_channels,
            norm_num_groups=8,
            scaling_factor=scaling_factor,
            mid_block_add_attention=False,
        )
        self._cell = 2 ** (levels - 1)
        self.register_buffer("background", torch.tensor(_BACKGROUND).view(1, 4, 1, 1), persistent=False)
        with torch.no_grad():  # begin as the shortcut alone, nearly without noise
            self.decoder.conv_out.weight.zero_()
            self.quant_conv.weight[:4].zero_()
            self.quant_conv.bias[latent_channels:] -= 6

    def _encode(self, x: Tensor) -> Tensor:
        moments = super()._encode(x)
        means = F.avg_pool2d(x - self.background, self._cell)
        return moments + F.pad(means, (0, 0, 0, 0, 0, moments.shape[1] - 4))

    def _decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        means = F.interpolate(z[:, :4], scale_factor=self._cell, mode="bilinear") + self.background
        decoded = super()._decode(z, return_dict=False)[0] + means
        return DecoderOutput(sample=decoded) if return_dict else (decoded,)


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

"""Frames to latents and back, for SVD's autoencoder and for the mini model's, which also carries alpha."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.autoencoders.vae import Decoder, DecoderOutput, DiagonalGaussianDistribution
from jaxtyping import Float
from torch import Tensor

from mv3d.model.alpha import from_autoencoder, to_autoencoder
from mv3d.model.view_decoder import ViewDecoder

Autoencoder = AutoencoderKL | AutoencoderKLTemporalDecoder

_TRACE_ALPHA = 0.06  # what decoding leaves of an empty background; below it nothing is meant
_ENCODE_AT_ONCE = 2  # coarse views: more of them leave a processor's caches
_FINEST_CHANNELS = 16  # of a decoder's levels beyond the encoder's
_NORM_GROUPS = 8
_BACKGROUND = (1.0, 1.0, 1.0, -1.0)  # white and transparent, as the autoencoder sees it


class RgbaAutoencoder(AutoencoderKL):
    """SVD's image autoencoder for RGBA frames, with a shortcut past its convolutions for mean colours.

    The first four latent channels carry the mean of each cell's pixels, less the background, and the decoder adds them
    back (residual autoencoding: DC-AE, Chen et al. 2025, section 3.2). What is learnt is only the detail: a small
    network trained for minutes otherwise reproduces shape long before colour. Empty cells are near zero.

    With an ``upscale_factor`` of 2 the decoder has one more level than the encoder: frames come out twice as large as
    they went in, and the latents, which the video model pays for, stay as few.

    A decoder that sees views (``decoder_sees_views``) has, beside the latents, the coarse views at full size: what
    the latents are too few for. Its frames have their alpha.
    """

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (24, 48, 96, 128),
        latent_channels: int = 8,
        scaling_factor: float = 1.0,
        upscale_factor: int = 1,
        decoder_sees_views: bool = False,
    ) -> None:
        levels = len(block_out_channels)
        super().__init__(
            in_channels=4,
            out_channels=4,
            down_block_types=("DownEncoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]  (tuples of any length)
            up_block_types=("UpDecoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
            block_out_channels=block_out_channels,  # pyright: ignore[reportArgumentType]
            layers_per_block=1,
            latent_channels=latent_channels,
            norm_num_groups=_NORM_GROUPS,
            scaling_factor=scaling_factor,
            mid_block_add_attention=False,
        )
        self._cell = 2 ** (levels - 1)
        more = _log2(upscale_factor)
        channels = (_FINEST_CHANNELS,) * more + tuple(block_out_channels)
        if decoder_sees_views:
            self.decoder = ViewDecoder(latent_channels, channels, _NORM_GROUPS)
        elif more:
            self.decoder = Decoder(
                in_channels=latent_channels,
                out_channels=4,
                up_block_types=("UpDecoderBlock2D",) * len(channels),
                block_out_channels=channels,
                layers_per_block=1,
                norm_num_groups=_NORM_GROUPS,
                mid_block_add_attention=False,
            )
        self.register_buffer("background", torch.tensor(_BACKGROUND).view(1, 4, 1, 1), persistent=False)
        with torch.no_grad():  # begin as the shortcut alone, nearly without noise
            assert self.quant_conv is not None
            assert self.quant_conv.bias is not None
            self.quant_conv.weight[:4].zero_()
            self.quant_conv.bias[:4].zero_()
            self.quant_conv.bias[latent_channels:] -= 6
            for parameter in self.decoder.conv_out.parameters():
                parameter.zero_()

    def _encode(self, x: Tensor) -> Tensor:
        moments = super()._encode(x)
        means = F.avg_pool2d(x - self.background, self._cell)
        return moments + F.pad(means, (0, 0, 0, 0, 0, moments.shape[1] - 4))

    def _decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        decoded = super()._decode(z, return_dict=False)[0] + self._means(z)
        return DecoderOutput(sample=decoded) if return_dict else (decoded,)

    def decode_beside(self, z: Tensor, views: Tensor) -> Tensor:
        """Decode latents (N, C, h, w) beside coarse views (N, 6, H, W), if the decoder sees views; (N, 4, H, W).

        The views say where the object is, and alpha is theirs: they are drawn from one surface, so that frames of one
        orbit agree. What is decoded are the colours on it.
        """
        assert self.post_quant_conv is not None
        decoded, share = self.decoder(self.post_quant_conv(z), view=views)
        colours, seen, alpha = (decoded + self._means(z))[:, :3], views[:, :3], views[:, 3:4]
        changed = (alpha / 2 + 0.5) * (1 - share)
        return torch.cat([seen + changed * (colours - seen), alpha], dim=1)

    def _means(self, z: Tensor) -> Tensor:
        pixels = self._cell * self.config["upscale_factor"]
        return F.interpolate(z[:, :4], scale_factor=pixels, mode="bilinear") + self.background


def upscale_factor(vae: Autoencoder) -> int:
    """How many times larger decoded frames are than encoded ones."""
    return vae.config.get("upscale_factor", 1)


def is_view_conditioned(vae: Autoencoder) -> bool:
    """Whether the decoder sees coarse views beside the latents, see `mv3d.model.drawing`."""
    return vae.config.get("decoder_sees_views", False)


def _log2(factor: int) -> int:
    if factor < 1 or factor.bit_count() != 1:
        raise ValueError(f"upscale_factor {factor} is no power of two")
    return factor.bit_length() - 1


def encode_frames(vae: Autoencoder, rgba: Float[Tensor, "N 4 H W"]) -> Float[Tensor, "N C h w"]:
    """Encode straight-alpha frames (N, 4, H, W) in [0, 1] to unscaled latents (N, C, H/8, W/8), the posterior's mode.

    The autoencoder sees the picture on white in [-1, 1], and alpha as a fourth channel if it has one.
    """
    return encode(vae, to_autoencoder(rgba, vae.config["in_channels"])).mode()


def encode_views(vae: Autoencoder, views: Float[Tensor, "V 6 S S"], resolution_px: int) -> Float[Tensor, "V C h w"]:
    """Unscaled latents (V, C, h, w) of coarse views (V, 6, S, S) at the size that the autoencoder encodes."""
    small = F.avg_pool2d(views[:, :4], views.shape[-1] // resolution_px)
    parts = from_autoencoder(small).split(_ENCODE_AT_ONCE)
    return torch.cat([encode_frames(vae, part) for part in parts])


def decode_latents(
    vae: Autoencoder, latents: Float[Tensor, "N C h w"], views: Float[Tensor, "N 6 H W"] | None = None
) -> Float[Tensor, "N 4 H W"]:
    """Decode unscaled latents (N, C, h, w), frames of one clip, to straight alpha (N, 4, H, W) in [0, 1].

    H is 8h times the autoencoder's `upscale_factor`. ``views`` (N, 6, H, W) is for a decoder that sees views.
    """
    return from_decoder(decode(vae, latents, views))


def from_decoder(x: Float[Tensor, "N channels H W"]) -> Float[Tensor, "N 4 H W"]:
    """What `decode` gives to straight alpha (N, 4, H, W) in [0, 1], with nothing where only a trace is left."""
    rgba = from_autoencoder(x)
    return torch.where(rgba[:, 3:] < _TRACE_ALPHA, rgba.new_zeros(()), rgba)


def encode(vae: Autoencoder, x: Float[Tensor, "N channels H W"]) -> DiagonalGaussianDistribution:
    """The posterior of what `to_autoencoder` gives."""
    output: Any = vae.encode(x)  # diffusers types it as a union with a tuple it only returns on demand
    return output.latent_dist


def decode(
    vae: Autoencoder, latents: Float[Tensor, "N C h w"], views: Float[Tensor, "N 6 H W"] | None = None
) -> Float[Tensor, "N channels H W"]:
    """What `from_autoencoder` reads."""
    if views is not None:
        assert isinstance(vae, RgbaAutoencoder)
        return vae.decode_beside(latents, views.to(latents))
    z: Any = latents
    # SVD's decoder mixes neighbouring frames and must be told how many make a clip.
    mixes_frames = isinstance(vae, AutoencoderKLTemporalDecoder)
    output: Any = vae.decode(z, num_frames=len(latents)) if mixes_frames else vae.decode(z)
    return output.sample

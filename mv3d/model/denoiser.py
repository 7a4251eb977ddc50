"""From the network's raw output to a denoised clip: EDM preconditioning with SVD's v-prediction, sigma_data = 1.

Noise levels are one per clip, shared by its frames. (Frames of their own levels would let the network copy detail from
the cleanest one, and are not what SVD was trained on.)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mv3d.errors import Mv3dError
from mv3d.model.conditioning import Conditions
from mv3d.model.unet import OrbitUNet


def c_skip(sigma: Tensor) -> Tensor:
    """1 / (sigma^2 + 1) (EDM, table 1, for the velocity target)."""
    return 1 / (sigma**2 + 1)


def c_out(sigma: Tensor) -> Tensor:
    """-sigma / sqrt(sigma^2 + 1)."""
    return -sigma * c_in(sigma)


def c_in(sigma: Tensor) -> Tensor:
    """1 / sqrt(sigma^2 + 1)."""
    return (sigma**2 + 1).rsqrt()


def c_noise(sigma: Tensor) -> Tensor:
    """Ln(sigma) / 4: what the network gets as its timestep."""
    return sigma.log() / 4


def loss_weight(sigma: Tensor) -> Tensor:
    """(1 + sigma^2) / sigma^2 = 1 / c_out^2: makes the loss an unweighted one on the network's output."""
    return (1 + sigma**2) / sigma**2


def weighted_error(
    denoised: Float[Tensor, "B F C H W"], latents: Float[Tensor, "B F C H W"], sigma: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """EDM's loss (B,) of clips (B, F, C, H, W) denoised from levels ``sigma`` (B,)."""
    return loss_weight(sigma) * (denoised - latents).square().mean(dim=(1, 2, 3, 4))


def sample_sigmas(
    num_clips: int, p_mean: float, p_std: float, generator: torch.Generator
) -> Float[Tensor, " {num_clips}"]:
    """Draw log-normal noise levels (num_clips,) (EDM, section 5)."""
    normal = torch.randn(num_clips, generator=generator, device=generator.device)
    return (p_mean + p_std * normal).exp()


class Denoiser:
    """Estimates clean latents with an `OrbitUNet`."""

    def __init__(self, unet: OrbitUNet, latent_scale: float = 1.0) -> None:
        """Wrap ``unet``; ``latent_scale`` is what the autoencoder's latents are multiplied by to be diffused."""
        self.unet = unet
        self.latent_scale = latent_scale

    def __call__(
        self, noisy: Float[Tensor, "B F C H W"], sigma: Float[Tensor, " B"], conditions: Conditions
    ) -> Float[Tensor, "B F C H W"]:
        """Denoise ``noisy`` (B, F, C, H, W) at levels ``sigma`` (B,); float32 outside the network.

        Frames are in an orbit's order, the input picture's view first. A network that wants it last gets it last.

        Raises:
            Mv3dError: if coarse views are missing from the conditions, or given to a network without a place for them.
        """
        batch, frames = noisy.shape[:2]
        assert sigma.shape == (batch,), f"one noise level per clip: {tuple(sigma.shape)} for {batch} clips"
        coarse_channels = self.unet.config["coarse_channels"]
        if (conditions.coarse_latents is not None) != bool(coarse_channels):
            wanted = "needs" if coarse_channels else "takes no"
            raise Mv3dError(f"this model {wanted} coarse views (its coarse_channels are {coarse_channels})")
        conditions = conditions.to(noisy.device, self.unet.dtype)
        if self.unet.config["input_last"]:
            conditions, noisy = conditions.turned(-1), noisy.roll(-1, dims=1)
        noisy, sigma = noisy.float(), sigma.float()
        level = sigma.view(-1, 1, 1, 1, 1)
        known = self.mean(conditions)
        mean = 0.0 if known is None else known
        deviation = noisy - mean
        inputs = [
            (c_in(level) * deviation).to(self.unet.dtype),
            conditions.image_latents[:, None].expand(-1, frames, -1, -1, -1),
        ]
        if conditions.coarse_latents is not None:
            inputs.append(conditions.coarse_latents)
        raw = self.unet(
            torch.cat(inputs, dim=2),
            c_noise(sigma),
            conditions.image_embedding,
            conditions.added_time_ids,
            conditions.poses,
        )
        denoised = mean + c_skip(level) * deviation + c_out(level) * raw.float()
        return denoised.roll(1, dims=1) if self.unet.config["input_last"] else denoised

    def mean(self, conditions: Conditions) -> Float[Tensor, "B F C H W"] | None:
        """Scaled latents (B, F, C, H, W) of the coarse views if deviations from them are diffused, else None."""
        if conditions.coarse_latents is None or not self.unet.config["coarse_mean"]:
            return None
        return self.latent_scale * conditions.coarse_latents.float()

    def loss(
        self,
        latents: Float[Tensor, "B F C H W"],
        sigma: Float[Tensor, " B"],
        noise: Float[Tensor, "B F C H W"],
        conditions: Conditions,
    ) -> Float[Tensor, " B"]:
        """Weighted squared error of every clip, (B,), for scaled clean latents and unit noise (B, F, C, H, W)."""
        denoised = self(latents + sigma.view(-1, 1, 1, 1, 1) * noise, sigma, conditions)
        return weighted_error(denoised, latents, sigma)

"""Views to Wan's latents and back, and which of the views a latent is of.

Wan's autoencoder (3D, causal) packs four frames in a latent, and the first frame alone in the first: 4k + 1 views are
k + 1 latents. Views go in as a video's frames do, the picture's own first, and an orbit's others in the order of its
path, so that what lies in one latent stands side by side. To encode each view by itself, as a video of one frame,
would keep more of its detail and take four times the work: 21 views would be 21 latents instead of 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from jaxtyping import Float
from torch import Tensor

from mv3d.cameras import Camera, turned_to_front
from mv3d.conventions import to_plucker
from mv3d.errors import Mv3dError

VIEWS_PER_LATENT = 4


def count_latents(num_views: int) -> int:
    """How many latents so many views are.

    Raises:
        Mv3dError: if they are not 4k + 1.
    """
    more, rest = divmod(num_views - 1, VIEWS_PER_LATENT)
    if num_views < 1 or rest:
        fewer = max(more, 0) * VIEWS_PER_LATENT + 1
        raise Mv3dError(
            f"Wan makes one view, the picture's own, and then four at a time: {fewer} or {fewer + VIEWS_PER_LATENT}, "
            f"that one included, and not {num_views}",
            argument="num_views",
        )
    return more + 1


def encode_video(vae: AutoencoderKLWan, frames: Float[Tensor, "B 3 F H W"]) -> Float[Tensor, "B C L h w"]:
    """Latents (B, C, L, h, w) of RGB frames (B, 3, F, H, W) in [0, 1], as they are diffused: the posterior's mode."""
    output: Any = vae.encode((frames * 2 - 1).to(vae.device, vae.dtype))  # typed as a union with a tuple
    mean, scale = _statistics(vae)
    latents = output.latent_dist.mode().float()
    return (latents - mean.to(latents)) * scale.to(latents)


def decode_video(vae: AutoencoderKLWan, latents: Float[Tensor, "B C L h w"]) -> Float[Tensor, "B 3 F H W"]:
    """Frames (B, 3, F, H, W) in [-1, 1] of latents (B, C, L, h, w) as they are diffused, four after four."""
    mean, scale = _statistics(vae)
    given = latents.to(vae.device, vae.dtype)
    output: Any = vae.decode(given / scale.to(given) + mean.to(given))
    return output.sample


def _statistics(vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation of each channel, (1, C, 1, 1, 1)."""
    mean, deviation = (torch.tensor(vae.config[key]).view(1, -1, 1, 1, 1) for key in ("latents_mean", "latents_std"))
    return mean, 1.0 / deviation


def rays_of(cameras: Sequence[Camera], size: int) -> Float[Tensor, "24 L {size} {size}"]:
    """Plücker rays (24, L, size, size) of the cells of 4L - 3 views, seen from where the first stands at azimuth 0.

    Of each latent its four views' direction and moment, in order; of the first latent its only view's, four times.

    Raises:
        Mv3dError: if there are not 4k + 1 views.
    """
    count = count_latents(len(cameras))
    rays = np.stack([to_plucker(camera.resized(size, size)) for camera in turned_to_front(cameras)])
    rays = np.concatenate([rays[:1].repeat(VIEWS_PER_LATENT - 1, axis=0), rays])
    packed = torch.from_numpy(rays).float().view(count, VIEWS_PER_LATENT, size, size, 6)
    return packed.permute(1, 4, 0, 2, 3).reshape(VIEWS_PER_LATENT * 6, count, size, size)

"""Flow matching (Lipman et al. 2022; rectified flow, Liu et al. 2022), by which Wan is trained and sampled.

A clip at noise level sigma, 0 to 1, is (1 - sigma) clean + sigma noise, and the network estimates the velocity noise -
clean. The first latent is the picture's own: it is given clean, at level 0, and what is estimated of it is not used.

Noise to signal is sigma / (1 - sigma), which is EDM's sigma for data of variance 1: so levels are drawn alike here and
there, ln of it from N(mean, std^2). A mean of ln s is what sampling with a shift of s goes by (SD3: Esser et al. 2024,
section 3.1 and equation 23).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mv3d.model.wan_transformer import OrbitTransformer

NUM_TIMESTEPS = 1000
"""Of Wan's schedulers: the network is told this many times the noise level."""


@dataclass(frozen=True, eq=False)
class FlowConditions:
    """What the transformer is told of B clips."""

    picture: Float[Tensor, "B C 1 h w"]
    """Latents of the input picture, as they are diffused."""
    prompt: Float[Tensor, "B tokens D"]
    """The words' embedding, see `mv3d.model.wan_prompt`."""
    rays: Float[Tensor, "B P L h w"] | None = None
    """See `mv3d.model.wan_video.rays_of`; None for a network without poses."""


def estimate_velocity(
    network: OrbitTransformer, noisy: Float[Tensor, "B C L h w"], times: Float[Tensor, " B"], conditions: FlowConditions
) -> Float[Tensor, "B C L h w"]:
    """The velocity of clips (B, C, L, h, w) at ``times`` (B,), `NUM_TIMESTEPS` times their noise levels.

    It is of the network's type of numbers.
    """
    assert (conditions.rays is not None) == bool(network.config["pose_channels"]), "rays are given if configured"
    _, rows, columns = network.config["patch_size"]
    frames, height, width = noisy.shape[2:]
    is_noisy = torch.ones(frames, height // rows, width // columns, device=noisy.device)
    is_noisy[0] = 0
    clip = torch.cat([conditions.picture.to(noisy), noisy[:, :, 1:]], dim=2)
    if conditions.rays is not None:
        clip = torch.cat([clip, conditions.rays.to(clip)], dim=1)
    dtype = network.patch_embedding.weight.dtype
    output: Any = network(
        hidden_states=clip.to(dtype),
        timestep=times[:, None] * is_noisy.flatten(),
        encoder_hidden_states=conditions.prompt.to(noisy.device, dtype),
        return_dict=False,
    )
    return output[0]


def draw_levels(num_clips: int, mean: float, std: float, generator: torch.Generator) -> Float[Tensor, " {num_clips}"]:
    """Draw noise levels (num_clips,): ln of noise to signal is normal."""
    return (mean + std * torch.randn(num_clips, generator=generator)).sigmoid()


def flow_error(
    network: OrbitTransformer,
    clean: Float[Tensor, "B C L h w"],
    noise: Float[Tensor, "B C L h w"],
    levels: Float[Tensor, " B"],
    conditions: FlowConditions,
) -> Float[Tensor, " B"]:
    """Mean squared error of the velocity, (B,), over all latents but the picture's."""
    at = levels.view(-1, 1, 1, 1, 1)
    velocity = estimate_velocity(network, (1 - at) * clean + at * noise, NUM_TIMESTEPS * levels, conditions)
    return (velocity.float() - (noise - clean))[:, :, 1:].square().mean(dim=(1, 2, 3, 4))

"""From noise to latents: noise levels, Euler's method, a consistency model's steps, guidance that differs by frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mv3d.conventions import sv3d_order
from mv3d.errors import Mv3dError
from mv3d.model.conditioning import Conditions
from mv3d.model.denoiser import Denoiser
from mv3d.model.facts import GuidanceKind

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(noisy (B, F, C, H, W), sigma (B,)) -> denoised."""


def karras_sigmas(
    num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> Float[Tensor, " {num_steps}+1"]:
    """Noise levels (num_steps + 1,) from ``sigma_max`` down to ``sigma_min``, then 0 (EDM, equation 5).

    Raises:
        Mv3dError: if there is no step to take.
    """
    if num_steps < 1:
        raise Mv3dError(f"{num_steps} sampling steps; at least 1 is needed")
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def consistency_sigmas(num_steps: int, teacher_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Noise levels (num_steps + 1,) for a consistency model: evenly chosen from those it was distilled on, then 0.

    Raises:
        Mv3dError: if there are not so many.
    """
    if not 1 <= num_steps <= teacher_steps:
        raise Mv3dError(f"{num_steps} sampling steps; this model was distilled to take 1 to {teacher_steps}")
    chosen = [k * teacher_steps // num_steps for k in range(num_steps + 1)]
    return karras_sigmas(teacher_steps, sigma_min, sigma_max)[chosen]


def euler_step(noisy: Tensor, denoised: Tensor, level: Tensor | float, next_level: Tensor | float) -> Tensor:
    """Follow the probability flow from one noise level to the next (EDM, algorithm 1, lines 7 and 8)."""
    return noisy + (next_level - level) / level * (noisy - denoised)


def sample_euler(
    denoise: Denoise,
    noise: Float[Tensor, "B F C H W"],
    sigmas: Float[Tensor, " levels"],
    on_step: Callable[[int, int], None] | None = None,
    *,
    mean: Float[Tensor, "B F C H W"] | None = None,
) -> Float[Tensor, "B F C H W"]:
    """Follow the probability flow from unit noise (B, F, C, H, W) to clean latents (EDM, algorithm 1 without churn).

    ``mean`` is what the clips deviate from, where the network diffuses the deviation (`Denoiser.mean`); ``on_step`` is
    called after each step with the steps done and their number.
    """
    levels = sigmas.tolist()
    x = _noisiest(noise, levels[0], mean)
    for k, (level, next_level) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        denoised = denoise(x, torch.full((len(x),), level, device=x.device))
        x = euler_step(x, denoised, level, next_level)
        if on_step is not None:
            on_step(k + 1, len(levels) - 1)
    return x


def sample_consistency(
    denoise: Denoise,
    noise: Float[Tensor, "B F C H W"],
    sigmas: Float[Tensor, " levels"],
    generator: torch.Generator,
    on_step: Callable[[int, int], None] | None = None,
    *,
    mean: Float[Tensor, "B F C H W"] | None = None,
) -> Float[Tensor, "B F C H W"]:
    """Sample a consistency model: jump to clean latents, add new noise of the next level, jump again.

    Song et al. 2023 (arXiv 2303.01469), algorithm 1. ``generator``, on the CPU, draws the new noise; the rest is as in
    `sample_euler`.
    """
    levels = sigmas.tolist()
    x = _noisiest(noise, levels[0], mean)
    for k, (level, next_level) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        x = denoise(x, torch.full((len(x),), level, device=x.device))
        if next_level:
            x = x + next_level * torch.randn(x.shape, generator=generator).to(x)
        if on_step is not None:
            on_step(k + 1, len(levels) - 1)
    return x


def _noisiest(noise: Tensor, level: float, mean: Tensor | None) -> Tensor:
    """Data of variance 1 at that level, as SVD starts; or the mean itself, of which a low level keeps most."""
    return noise * (level**2 + 1) ** 0.5 if mean is None else mean + noise * level


# -------------------------------------------------------------------------------------------------
# Guidance.


def guidance_per_frame(kind: GuidanceKind, low: float, high: float, num_frames: int) -> Float[Tensor, " {num_frames}"]:
    """Guidance scales (F,) in the order of the system they come from.

    * constant: ``high`` everywhere.
    * linear: ``low`` at the first frame, which is the input picture, to ``high`` at the last (SVD: 1 to 2.5 or 3).
    * triangle: SV3D's. Up and down again, for 21 frames from 1 to 2.5: 1.00, 1.15, ... 2.35, 2.50 (index 10), 2.35, ...
      1.15, 1.00 (index 20, the input view). Pass it on through `from_sv3d_order`.
    """
    ramp = torch.linspace(0, 1, num_frames)
    if kind == "constant":
        return torch.full((num_frames,), high)
    if kind == "triangle":
        ramp = 2 * (ramp - (ramp + 0.5).floor()).abs()
    return low + (high - low) * ramp


def from_sv3d_order(scales: Float[Tensor, " F"], input_index: int = 0) -> Float[Tensor, " F"]:
    """Bring scales (F,) from SV3D's order of views, input view last, to an orbit's own."""
    ours = torch.empty_like(scales)
    ours[sv3d_order(len(scales), input_index)] = scales
    return ours


def guided(
    denoiser: Denoiser, conditions: Conditions, scale_per_frame: Float[Tensor, " F"], *, apart: bool = False
) -> Denoise:
    """Guide by ``scale_per_frame`` (F,): 1 is the plain conditional estimate, more moves away from the unconditional.

    Both estimates are made in one batch, or, in half the memory, one after the other if ``apart``; where all scales are
    1 the unconditional one is not made at all.
    """
    if bool((scale_per_frame == 1).all()):
        return lambda noisy, sigma: denoiser(noisy, sigma, conditions)
    without = conditions.without_image()
    both = without.joined(conditions)

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        scale = scale_per_frame.to(noisy.device).view(1, -1, 1, 1, 1)
        if apart:
            unconditional = denoiser(noisy, sigma, without)
            return unconditional + scale * (denoiser(noisy, sigma, conditions) - unconditional)
        unconditional, conditional = denoiser(noisy.repeat(2, 1, 1, 1, 1), sigma.repeat(2), both).chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return denoise

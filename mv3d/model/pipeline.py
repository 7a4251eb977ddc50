"""The networks of a model as one: a picture and cameras become conditions, and conditions become views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from mv3d.cameras import Camera
from mv3d.errors import Mv3dError
from mv3d.model.alpha import on_white, to_autoencoder
from mv3d.model.autoencoder import encode, encode_frames, encode_views, is_view_conditioned
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.coarse_stage import CoarseOrbit, make_coarse_orbit
from mv3d.model.conditioning import Conditions, embed_image, poses_of
from mv3d.model.decoding import decode_clip
from mv3d.model.denoiser import Denoiser
from mv3d.model.facts import ModelFacts, SampleSettings
from mv3d.model.long_clips import LongClip
from mv3d.model.placement import explained_memory
from mv3d.model.posed_picture import resized
from mv3d.model.sampling import (
    consistency_sigmas,
    from_sv3d_order,
    guidance_per_frame,
    guided,
    karras_sigmas,
    sample_consistency,
    sample_euler,
)


def make_conditions(
    model: OrbitModel, picture: Tensor, cameras: Sequence[Camera], seed: int = 0, coarse: CoarseOrbit | None = None
) -> Conditions:
    """Everything the model is told about one object: a batch of one clip.

    ``picture`` is (4, S, S) straight RGBA, best of the model's ``output_px``; the first camera is the picture's;
    ``seed`` draws the noise that SVD adds; ``coarse`` is made here where it is needed and not given.
    """
    seen = resized(picture, model.facts.resolution_px)
    latents = None
    if model.unet.config["coarse_channels"]:
        if model.coarse is None:
            raise Mv3dError(f"{model.facts.name} wants coarse views but has no coarse/ folder")
        coarse = coarse or make_coarse_orbit(model.coarse, picture, cameras, model.output_px)
        with model.placed.using(model.vae):
            latents = encode_views(model.vae, coarse.views, model.facts.resolution_px)
    placed = model.placed
    with placed.using(model.vae), explained_memory(placed, "encode the picture"):
        picture_latents = _picture_latents(model, seen, seed)[0].float()
    with placed.using(model.image_encoder), explained_memory(placed, "embed the picture"):
        embedding = embed_image(model.image_encoder, on_white(seen[None]))[0, 0]
    conditions = assemble_conditions(
        model, cameras, picture_latents=picture_latents, embedding=embedding, coarse_latents=latents
    )
    views = coarse.views[None] if coarse is not None and is_view_conditioned(model.vae) else None
    return replace(conditions, coarse_views=views)


def assemble_conditions(
    model: OrbitModel,
    cameras: Sequence[Camera],
    *,
    picture_latents: Tensor,
    embedding: Tensor,
    coarse_latents: Tensor | None = None,
    cond_aug: float | None = None,
) -> Conditions:
    """The conditions of one clip, of what is encoded already; in sampling and in training alike.

    Args:
        model: tells the ids, and whether poses are wanted.
        cameras: of the clip's F frames, the picture's first.
        picture_latents: (C, h, w), unscaled; everything comes to their device.
        embedding: (D,) of the picture, see `embed_image`.
        coarse_latents: (F, C, h, w), unscaled, of a model with coarse views.
        cond_aug: the noise added to the picture; the model's own, fixed value if None.
    """
    device, ids = picture_latents.device, model.facts.added_time_ids
    return Conditions(
        image_latents=picture_latents[None],
        image_embedding=embedding[None, None],
        added_time_ids=torch.tensor([[*ids[:-1], ids[-1] if cond_aug is None else cond_aug]], device=device),
        poses=poses_of(cameras)[None].to(device) if model.unet.config["pose_embed_dim"] else None,
        coarse_latents=None if coarse_latents is None else coarse_latents[None],
    )


def _picture_latents(model: OrbitModel, picture: Tensor, seed: int) -> Tensor:
    """Latents of the input picture with the noise that the model is told of (SVD, appendix D; SV3D: nearly none).

    The mini model's autoencoder, which carries alpha, was trained beside a UNet that saw pictures without noise.
    """
    if model.has_alpha:
        return encode_frames(model.vae, picture[None])
    seen = to_autoencoder(picture[None], 3)
    noise = torch.randn(seen.shape, generator=torch.Generator().manual_seed(seed)).to(seen)
    noisy, vae = seen + model.facts.added_time_ids[-1] * noise, model.vae
    if vae.dtype != torch.float16:
        return encode(vae, noisy.to(vae.dtype)).mode()
    nn.Module.to(vae, torch.float32)  # Stable Diffusion's encoder overflows in half precision
    try:
        return encode(vae, noisy).mode()
    finally:
        nn.Module.to(vae, torch.float16)


def guidance_scales(facts: ModelFacts, num_frames: int, high: float | None = None) -> Tensor:
    """Guidance of each frame (F,) in an orbit's order; ``high`` in place of the model's own highest."""
    high = facts.guidance_high if high is None else high
    scales = guidance_per_frame(facts.guidance, min(facts.guidance_low, high), high, num_frames)
    return from_sv3d_order(scales) if facts.guidance == "triangle" else scales


def sample_views(
    model: OrbitModel,
    conditions: Conditions,
    settings: SampleSettings,
    on_step: Callable[[int, int], None] | None = None,
    long: LongClip | None = None,
) -> Tensor:
    """Sample one clip, (F, 4, S, S) straight RGBA in [0, 1], S the model's ``output_px``; ``long`` ones in parts."""
    facts = model.facts
    frames = settings.num_views
    channels, height, width = conditions.image_latents.shape[1:]
    # Drawn on the CPU, so that a seed means the same noise on every device.
    generator = torch.Generator().manual_seed(settings.seed)
    if long is None:
        noise = torch.randn(1, frames, channels, height, width, generator=generator)
    else:
        noise = long.noise(channels, height, width, generator)
    noise = noise.to(conditions.image_latents.device)
    steps, levels = settings.steps or facts.num_steps, (facts.sigma_min, facts.sigma_max)
    denoiser = Denoiser(model.unet, model.vae.config["scaling_factor"])
    mean = denoiser.mean(conditions)
    placed = model.placed

    def denoise_clip(noisy: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        scales = guidance_scales(facts, noisy.shape[1], settings.guidance)
        return guided(denoiser, conditions, scales, apart=placed.spares_memory)(noisy, sigma)

    denoise = partial(denoise_clip, conditions=conditions) if long is None else long.mixed(conditions, denoise_clip)
    with placed.using(model.unet), explained_memory(placed, f"sample {frames} views"):
        if facts.teacher_steps is None:
            latents = sample_euler(denoise, noise, karras_sigmas(steps, *levels), on_step, mean=mean)
        else:
            sigmas = consistency_sigmas(steps, facts.teacher_steps, *levels)
            latents = sample_consistency(denoise, noise, sigmas, generator, on_step, mean=mean)
    latents = (latents[0] / model.vae.config["scaling_factor"]).to(model.vae.dtype)
    views = None if conditions.coarse_views is None else conditions.coarse_views[0]
    with placed.using(model.vae):
        return decode_clip(model.vae, latents, views, settings.decode_chunk)

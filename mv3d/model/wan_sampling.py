"""From a picture and cameras to views by Wan: what diffusers' ``WanImageToVideoPipeline`` does, and poses besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mv3d.cameras import Camera
from mv3d.errors import Mv3dError
from mv3d.model.alpha import on_white
from mv3d.model.autoencoder import from_decoder
from mv3d.model.facts import SampleSettings
from mv3d.model.finite import check_finite
from mv3d.model.flow import FlowConditions, estimate_velocity
from mv3d.model.placement import explained_memory
from mv3d.model.posed_picture import resized
from mv3d.model.wan_checkpoints import WanModel, make_scheduler
from mv3d.model.wan_video import count_latents, decode_video, encode_video, rays_of


def sample_wan(
    model: WanModel,
    picture: Tensor,
    cameras: Sequence[Camera],
    settings: SampleSettings,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Sample one clip, (F, 4, S, S) straight RGBA in [0, 1], opaque, S the model's ``output_px``.

    Args:
        model: may have poses or none.
        picture: (4, S, S) straight RGBA, best of the model's ``output_px``.
        cameras: of the F views, the picture's first.
        settings: how; the views are as many as the cameras.
        on_step: called with the steps done and in all.

    Raises:
        Mv3dError: if the views are not 4k + 1, frames are asked for by the number while decoding, or memory or the
            model's numbers do not suffice.
    """
    placed, size, frames = model.placed, model.latent_size, len(cameras)
    count = count_latents(frames)
    if settings.decode_chunk is not None:
        raise Mv3dError(
            "Wan's autoencoder decodes four views at a time by itself; leave decode_chunk out", argument="decode_chunk"
        )
    seen = on_white(resized(picture, model.facts.resolution_px)[None])
    with placed.using(model.vae), explained_memory(placed, "encode the picture"):
        known = encode_video(model.vae, seen[:, :, None])
    rays = rays_of(cameras, size)[None].to(known) if model.is_camera_conditioned else None
    with_words, without = (
        FlowConditions(known, model.prompt.padded(negative=negative).to(known), rays) for negative in (False, True)
    )
    scale = model.facts.guidance_high if settings.guidance is None else settings.guidance
    steps = settings.steps or model.facts.num_steps
    scheduler = make_scheduler(model, steps, known.device)
    # Drawn on the CPU, so that a seed means the same noise on every device.
    generator = torch.Generator().manual_seed(settings.seed)
    latents = torch.randn(1, known.shape[1], count, size, size, generator=generator).to(known)
    with placed.using(model.transformer), explained_memory(placed, f"sample {frames} views"):
        for done, time in enumerate(scheduler.timesteps, 1):
            # One estimate after the other: at this size both at once are no faster.
            velocity = estimate_velocity(model.transformer, latents, time[None].float(), with_words)
            if scale > 1:
                unguided = estimate_velocity(model.transformer, latents, time[None].float(), without)
                velocity = unguided + scale * (velocity - unguided)
            latents = scheduler.step(velocity, time, latents, return_dict=False)[0]
            if on_step is not None:
                on_step(done, steps)
    latents = torch.cat([known, latents[:, :, 1:]], dim=2)
    check_finite(latents[0].transpose(0, 1), "latents")
    with placed.using(model.vae), explained_memory(placed, f"decode {frames} views"):
        decoded = decode_video(model.vae, latents)[0].transpose(0, 1)
    check_finite(decoded, "decoded frames")
    return from_decoder(decoded)

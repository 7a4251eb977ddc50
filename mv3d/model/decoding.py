"""Latents of a whole clip to frames: at once, or a few frames at a time where memory is short.

SVD's temporal decoder convolves across frames, and its norms take their mean and variance over the whole clip. Cut into
chunks it makes other frames, and jumps where chunks meet. In parts it is therefore run layer by layer: a few frames are
on the device, the others wait in main memory, and the result is that of the whole clip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder, TemporalDecoder
from diffusers.models.resnet import SpatioTemporalResBlock
from torch import Tensor, nn

from mv3d.errors import Mv3dError
from mv3d.model.autoencoder import Autoencoder, decode, from_decoder
from mv3d.model.finite import check_finite
from mv3d.model.placement import is_out_of_memory

_FRAMES_AT_ONCE = 2  # of decoders without time: more of them leave a processor's caches (8 take 1.4 times as long)
_CLIP_NUMBERS = 2**17  # latents of a clip, six frames of 576 px, that a CPU decodes at once: more takes no less time

Frames = list[Tensor]
"""Of one clip, (1, C, H, W) each."""


def decode_clip(
    vae: Autoencoder, latents: Tensor, views: Tensor | None = None, frames_at_once: int | None = None
) -> Tensor:
    """Decode unscaled latents (F, C, h, w) of one clip to straight alpha (F, 4, H, W) in [0, 1].

    Args:
        vae: whose `mv3d.model.autoencoder.upscale_factor` and downsampling say what H is.
        latents: in the orbit's order.
        views: (F, 6, H, W), for a decoder that sees views.
        frames_at_once: on the device; changes memory and time, not the frames. If None all of them for a decoder that
            mixes them (of a long clip on a CPU a few, layer by layer), else a few.

    Raises:
        Mv3dError: if anything in the latents or frames is NaN or infinite, or the device's memory does not suffice.
    """
    check_finite(latents, "latents")
    count = _count_at_once(vae, latents, frames_at_once)
    try:
        decoded = _decode(vae, latents, views, count)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        advice = f"try {count // 2}, or the CPU" if count > 1 else "use the CPU"
        raise Mv3dError(
            f"there is not enough memory on {latents.device} to decode {count} frame{'s' * (count > 1)} of a clip at "
            f"once; {advice}",
            argument="decode_chunk" if count > 1 else "device",
        ) from error
    check_finite(decoded, "decoded frames")
    return from_decoder(decoded)


def _count_at_once(vae: Autoencoder, latents: Tensor, asked: int | None) -> int:
    """How many frames are decoded at a time, of those that there are."""
    if asked is None:
        mixes = isinstance(vae, AutoencoderKLTemporalDecoder)
        is_long = latents.device.type == "cpu" and latents.numel() > _CLIP_NUMBERS
        asked = len(latents) if mixes and not is_long else _FRAMES_AT_ONCE
    return min(asked, len(latents))


def _decode(vae: Autoencoder, latents: Tensor, views: Tensor | None, count: int) -> Tensor:
    if isinstance(vae, AutoencoderKLTemporalDecoder):
        return decode(vae, latents) if count == len(latents) else _decode_by_layers(vae.decoder, latents, count)
    chunks = latents.split(count)
    if views is None:
        return torch.cat([decode(vae, chunk) for chunk in chunks])
    return torch.cat([decode(vae, *both) for both in zip(chunks, views.split(count), strict=True)])


def _decode_by_layers(decoder: TemporalDecoder, latents: Tensor, count: int) -> Tensor:
    """`TemporalDecoder.forward` with ``count`` frames at a time on the device."""
    device = latents.device
    frames = _each(decoder.conv_in, list(latents.cpu().split(1)), count, device)
    middle: Any = decoder.mid_block
    frames = _res_block(middle.resnets[0], frames, count, device)
    for attention, block in zip(middle.attentions, middle.resnets[1:], strict=False):  # as many as there are of both
        frames = _res_block(block, _each(attention, frames, count, device), count, device)
    level: Any
    for level in decoder.up_blocks:
        for block in level.resnets:
            frames = _res_block(block, frames, count, device)
        for upsampler in level.upsamplers or ():
            frames = _each(upsampler, frames, count, device)
    last = nn.Sequential(decoder.conv_norm_out, decoder.conv_act, decoder.conv_out)
    frames = _each(last, frames, count, device)
    return torch.cat(_convolve_time(decoder.time_conv_out, frames, count, device)).to(device)


def _each(layer: Callable[[Tensor], Tensor], frames: Frames, count: int, device: torch.device) -> Frames:
    """A layer that does not mix frames; takes the place of ``frames``, so that both are never there whole."""
    for start in range(0, len(frames), count):
        part = layer(torch.cat(frames[start : start + count]).to(device))
        frames[start : start + count] = part.cpu().split(1)
    return frames


def _res_block(block: SpatioTemporalResBlock, frames: Frames, count: int, device: torch.device) -> Frames:
    spatial = _each(lambda part: block.spatial_res_block(part, None), frames, count, device)
    temporal = block.temporal_res_block
    change = list(spatial)
    for norm, convolution in ((temporal.norm1, temporal.conv1), (temporal.norm2, temporal.conv2)):
        change = _convolve_time(convolution, change, count, device, before=_normed(norm, change, device))
    for start in range(0, len(spatial), count):
        own, added = (torch.cat(some[start : start + count]).to(device) for some in (spatial, change))
        mixed = block.time_mixer(x_spatial=own, x_temporal=own + added)
        spatial[start : start + count] = mixed.cpu().split(1)
    return spatial


def _normed(norm: nn.GroupNorm, frames: Frames, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The norm over a whole clip and the nonlinearity behind it, for any of its frames."""
    moments = [
        torch.var_mean(frame.to(device).float().reshape(norm.num_groups, -1), 1, correction=0) for frame in frames
    ]
    variances, means = (torch.stack(values).double() for values in zip(*moments, strict=True))
    mean = means.mean(dim=0)
    variance = (variances + (means - mean).square()).mean(dim=0)
    scale = (variance + norm.eps).rsqrt().float().repeat_interleave(norm.num_channels // norm.num_groups)
    offset = -mean.float().repeat_interleave(norm.num_channels // norm.num_groups) * scale
    gain, shift = (scale * norm.weight)[:, None, None], (offset * norm.weight + norm.bias)[:, None, None]
    return lambda part: F.silu((part * gain).add_(shift).to(part.dtype), inplace=True)


def _convolve_time(
    convolution: nn.Conv3d,
    frames: Frames,
    count: int,
    device: torch.device,
    before: Callable[[Tensor], Tensor] = lambda part: part,
) -> Frames:
    """A convolution over three successive frames of what ``before`` makes of each, zeros beyond the clip's ends.

    Takes the place of ``frames``, as `_each` does.
    """
    assert convolution.kernel_size == (3, 1, 1), "one frame before, one after, and no space"
    assert convolution.bias is not None
    left: Frames = []  # the frame before, as it was
    for start in range(0, len(frames), count):
        stop = min(start + count, len(frames))
        part = before(torch.cat([*left, *frames[start : stop + 1]]).to(device))
        ends = (int(start == 0), int(stop == len(frames)))
        padded = part.transpose(0, 1)[None]
        if any(ends):
            padded = F.pad(padded, (0, 0, 0, 0, *ends))
        convolved = F.conv3d(padded, convolution.weight.to(padded), convolution.bias.to(padded))
        left = frames[stop - 1 : stop]
        frames[start:stop] = convolved[0].transpose(0, 1).cpu().split(1)
    return frames

"""Clips are decoded whole, however few frames are on the device, and what is not finite is no frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import Tensor

from mv3d.errors import Mv3dError
from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.model.alpha import from_autoencoder
from mv3d.model.autoencoder import decode
from mv3d.model.checkpoints import load_model
from mv3d.model.decoding import decode_clip


def make_temporal_vae(seed: int = 0) -> AutoencoderKLTemporalDecoder:
    """A narrow one of SVD's, whose frames depend on each other: it begins with all time switched off."""
    torch.manual_seed(seed)
    config: Any = {"block_out_channels": (32, 32), "down_block_types": ("DownEncoderBlock2D",) * 2}
    vae = AutoencoderKLTemporalDecoder(**config, layers_per_block=2)
    with torch.no_grad():
        for name, value in vae.named_parameters():
            if "mix_factor" in name:
                value.fill_(0.7)
            elif name.endswith("bias") or "norm" in name:
                value.add_(0.2 * torch.randn(value.shape))
    return vae.eval()


@pytest.fixture(scope="module")
def temporal() -> AutoencoderKLTemporalDecoder:
    return make_temporal_vae()


@pytest.fixture(scope="module")
def latents() -> Tensor:
    drift = torch.linspace(-1, 1, 7)[:, None, None, None]
    return torch.randn(7, 4, 6, 5, generator=torch.Generator().manual_seed(1)) + drift


def whole(vae: AutoencoderKLTemporalDecoder, latents: Tensor) -> Tensor:
    return from_autoencoder(vae.decode(latents, num_frames=len(latents), return_dict=False)[0])


@torch.no_grad()
def test_a_decoder_that_mixes_frames_gets_the_whole_clip(temporal, latents):
    assert torch.equal(decode_clip(temporal, latents), whole(temporal, latents))
    # What chunks alone would give, two frames at a time.
    cut = torch.cat([whole(temporal, chunk) for chunk in latents.split(2)])
    assert (cut - whole(temporal, latents)).abs().max() > 0.02


@pytest.mark.parametrize("frames_at_once", [1, 3, 6])
@torch.no_grad()
def test_a_few_frames_at_a_time_are_those_of_the_whole_clip(temporal, latents, frames_at_once):
    decoded = decode_clip(temporal, latents, frames_at_once=frames_at_once)
    torch.testing.assert_close(decoded, whole(temporal, latents), rtol=0, atol=1e-5)


@torch.no_grad()
def test_no_more_frames_than_asked_for_are_computed_at_a_time(temporal, latents):
    seen = []
    hooks = [
        module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        for module in temporal.decoder.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    decode_clip(temporal, latents, frames_at_once=3)
    for hook in hooks:
        hook.remove()
    assert max(seen) == 3


@torch.no_grad()
def test_frames_that_wait_lie_in_memory_twice_at_most(temporal):
    """The clip, and what is added to it; each layer's result takes the place of what it was made of."""
    clip = torch.randn(24, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.profiler.profile(profile_memory=True) as profiler:
        decode_clip(temporal, clip, frames_at_once=1)
    reported = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = np.cumsum([event.nbytes() for event in sorted(reported, key=lambda event: event.start_ns())]).max()
    largest = len(clip) * 32 * 16 * 16 * 4  # of any layer's results: 32 channels at full size
    assert largest < peak < 2.7 * largest


@pytest.mark.parametrize("frames_at_once", [None, 1, 3])
@torch.no_grad()
def test_a_decoder_without_time_is_the_same_in_any_chunks(latents, frames_at_once):
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(32,), norm_num_groups=8).eval()
    expected = from_autoencoder(torch.cat([decode(vae, frame) for frame in latents.split(1)]))
    torch.testing.assert_close(decode_clip(vae, latents, frames_at_once=frames_at_once), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_orbit_is_decoded_as_asked(tiny_model):
    """Through `generate_orbit`: whole by default, and --decode-chunk changes no pixel."""
    model = replace(load_model(tiny_model), vae=make_temporal_vae())
    given = torch.rand(32, 32, 4, generator=torch.Generator().manual_seed(0)).numpy()
    counts = []
    hook = model.vae.decoder.conv_in.register_forward_pre_hook(lambda _, given: counts.append(len(given[0])))
    frames = generate_orbit(given, model, GenerateSettings(5)).frames
    assert counts == [5]
    few = generate_orbit(given, model, GenerateSettings(5, decode_chunk=2)).frames
    hook.remove()
    assert counts[1:] == [2, 2, 1]
    assert abs(few - frames).max() < 1e-4
    with pytest.raises(Mv3dError, match="decode_chunk 0: give 1 frame or more"):
        GenerateSettings(decode_chunk=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("preview", [False, True])
@torch.no_grad()
def test_frames_that_are_not_finite_are_an_error(tiny_model, value, preview):
    model = load_model(tiny_model)
    network = model.coarse if preview else model.vae.decoder
    assert network is not None
    last = [value for value in network.parameters() if value.ndim > 1][-1]
    last[0] = value
    given = torch.rand(32, 32, 4, generator=torch.Generator().manual_seed(0)).numpy()
    with pytest.raises(Mv3dError, match="NaN or infinite in . of 3 views") as caught:
        generate_orbit(given, model, GenerateSettings(3, preview=preview))
    assert "\n" not in str(caught.value)


def test_memory_that_does_not_suffice_is_one_line_with_the_option(temporal, latents, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 40 GiB")

    monkeypatch.setattr(temporal, "decode", fail)
    with pytest.raises(Mv3dError, match="to decode 7 frames of a clip at once; try 3, or the CPU") as caught:
        decode_clip(temporal, latents)
    assert "\n" not in str(caught.value)
    assert caught.value.argument == "decode_chunk"


@pytest.mark.parametrize(
    ("asked", "said", "argument"),
    [
        (None, "decode 2 frames of a clip at once; try 1, or the CPU", "decode_chunk"),
        (1, "decode 1 frame of a clip at once; use the CPU", "device"),
        (100, "decode 7 frames of a clip at once; try 3, or the CPU", "decode_chunk"),
    ],
)
def test_what_helps_is_less_than_what_was_tried(latents, monkeypatch, asked, said, argument):
    """A decoder without time takes two frames at a time by itself; more of them would not help."""
    vae = AutoencoderKL(block_out_channels=(32,), norm_num_groups=8).eval()

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(vae, "decode", fail)
    with pytest.raises(Mv3dError, match=said) as caught:
        decode_clip(vae, latents, frames_at_once=asked)
    assert caught.value.argument == argument

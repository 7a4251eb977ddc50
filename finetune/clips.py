"""Clips: orbits as pictures and cameras, and what a training step is given of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from finetune.pictures import to_tensor
from mv3d.cameras import Camera, turned_to_front
from mv3d.dataset import ListedOrbit
from mv3d.errors import Mv3dError
from mv3d.model.conditioning import Conditions
from mv3d.orbit import load_orbit, to_uint8


@dataclass(frozen=True)
class OrbitFrames:
    """One orbit's pictures (F, 4, S, S) in [0, 1], straight alpha, and cameras, in order."""

    rgba: Tensor
    cameras: tuple[Camera, ...]


def load_frames(entry: ListedOrbit, size_px: int) -> OrbitFrames:
    """Read an orbit folder at one size."""
    orbit = load_orbit(Path(entry.orbit))
    orbit = orbit if orbit.frames.shape[1:3] == (size_px, size_px) else orbit.resized(size_px)
    return OrbitFrames(to_tensor(to_uint8(orbit.frames)), orbit.cameras)


def begun_at(frames: OrbitFrames, start: int, num_views: int) -> OrbitFrames:
    """Thin an orbit evenly, beginning at one of its views, and turn it so that this one stands at azimuth 0.

    Raises:
        Mv3dError: if it does not divide by ``num_views``.
    """
    total = len(frames.cameras)
    if total % num_views:
        raise Mv3dError(f"an orbit of {total} views cannot be thinned to {num_views}; render or ask for another number")
    chosen = [(start + k * (total // num_views)) % total for k in range(num_views)]
    return OrbitFrames(frames.rgba[chosen], turned_to_front([frames.cameras[k] for k in chosen]))


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """B clips of F frames, each beginning at its input picture's view."""

    latents: Tensor
    """(B, F, C, h, w), unscaled."""
    conditions: Conditions
    frames: Tensor | None = None
    """(B, F, 4, S, S), straight, of the size that the model gives; where something is trained that sees frames."""
    views: Tensor | None = None
    """(B, F, 6, S, S), the coarse views, see `mv3d.model.drawing`; for a decoder that sees them."""


def batch_of(clips: Sequence[ClipBatch]) -> ClipBatch:
    """Clips of one each, in one batch."""
    conditions = clips[0].conditions
    for other in clips[1:]:
        conditions = conditions.joined(other.conditions)
    return ClipBatch(
        torch.cat([clip.latents for clip in clips]),
        conditions,
        None if clips[0].frames is None else torch.cat([clip.frames for clip in clips if clip.frames is not None]),
        None if clips[0].views is None else torch.cat([clip.views for clip in clips if clip.views is not None]),
    )

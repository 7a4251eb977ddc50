"""Frames as batches of tensors: conversion, augmentation that keeps geometry true, and sheets to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mv3d.files import whole_file
from mv3d.model.alpha import on_white, premultiplied, straight
from mv3d.video import write_video

_SPOTS = 24  # over the whole frame, of which the object is a part


def to_tensor(frames: np.ndarray) -> Tensor:
    """Frames (..., H, W, 4) uint8 to (..., 4, H, W) float in [0, 1]."""
    return torch.tensor(np.asarray(frames)).movedim(-1, -3).float() / 255


def shrunk(rgba: Tensor, size_px: int) -> Tensor:
    """Average straight-alpha frames (N, 4, S, S) to a size that divides theirs, colours weighted by alpha."""
    factor = rgba.shape[-1] // size_px
    if factor == 1:
        return rgba
    return straight(F.avg_pool2d(premultiplied(rgba), factor))


def augmented(rgba: Tensor, generator: torch.Generator) -> Tensor:
    """Recolour and flip a batch (B, 4, H, W) by its own draw per sample."""
    from kornia.geometry.transform import hflip

    rgba = torch.stack([recoloured(sample, generator) for sample in rgba])
    flip = torch.rand(len(rgba), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], hflip(rgba), rgba)


def recoloured(rgba: Tensor, generator: torch.Generator) -> Tensor:
    """Permute the colour channels and change the gamma of (..., 4, H, W): one draw for all its frames.

    The draws are made here and not by kornia's augmentations, whose generator is torch's global one: a step that is
    repeated after a restart must see the same pictures.
    """
    from kornia.enhance import adjust_gamma

    order = torch.randperm(3, generator=generator) if torch.rand((), generator=generator) < 0.5 else torch.arange(3)
    gamma = torch.exp(0.25 * torch.randn((), generator=generator))
    rgb = adjust_gamma(rgba[..., order, :, :].clamp(min=1e-4), gamma)
    return torch.cat([rgb, rgba[..., 3:, :, :]], dim=-3)


def spotted(rgba: Tensor, generator: torch.Generator) -> Tensor:
    """Paint discs of one colour, white as often as not, on to a quarter of pictures (N, 4, S, S).

    What is painted on an object says nothing of its shape; a network that sees pictures on white takes white spots for
    holes otherwise.
    """
    axis = (torch.arange(rgba.shape[-1]) + 0.5) / rgba.shape[-1]
    out = rgba.clone()
    for picture in out:
        if torch.rand((), generator=generator) >= 0.25:
            continue
        colour = torch.ones(3) if torch.rand((), generator=generator) < 0.5 else torch.rand(3, generator=generator)
        for x, y, size in torch.rand(_SPOTS, 3, generator=generator).tolist():
            radius = 0.02 + 0.08 * size**2
            inside = (axis - x).square() + (axis[:, None] - y).square() < radius**2
            picture[:3, inside] = colour[:, None]
    return out


def save_rows_video(rows: list[Tensor], path: Path, frames_per_second: int = 7) -> None:
    """Write rows of frames (N, 3 or 4, H, W) in [0, 1] as one video on white: N frames, the rows in two columns."""
    rows = [on_white(row) if row.shape[1] == 4 else row for row in rows]
    columns = [torch.cat(rows[k::2], dim=2) for k in range(min(2, len(rows)))]
    video = (torch.cat(columns, dim=3).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()
    write_video(video, path, frames_per_second=frames_per_second)


def save_rows(rows: list[Tensor], path: Path) -> None:
    """Write rows of frames (N, 3 or 4, H, W) in [0, 1] as one picture on white."""
    rows = [on_white(row) if row.shape[1] == 4 else row for row in rows]
    picture = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    with whole_file(path) as partial:
        Image.fromarray((picture.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()).save(partial, quality=90)

"""Fields that a network of one picture makes of several pictures, mixed into one."""

from __future__ import annotations

from collections.abc import Sequence
from math import radians
from typing import NamedTuple

import torch
from torch import Tensor

from mv3d.model.coarse import CoarseNet, Field
from mv3d.model.drawing import Appearance

_FACING = 4.0  # how much more a picture counts for colours on its own side than for those on the other, as a power of e


class TurnedField(NamedTuple):
    """The field of one picture, in which that picture stands at azimuth 0."""

    field: Field
    azimuth_deg: float
    """Of the picture, as the object's other pictures are told."""


class FusedFields:
    """A coarse network asked about several pictures of one object; it answers as the network does."""

    def __init__(self, network: CoarseNet) -> None:
        self._network = network
        self.frustum = network.frustum

    def occupancy_logits(self, field: Sequence[TurnedField], points: Tensor) -> Tensor:
        """The mean of what the pictures' fields say, (1, P), of points (1, P, 3)."""
        logits = [self._network.occupancy_logits(one.field, _turned(points, one.azimuth_deg)) for one in field]
        return torch.stack(logits).mean(dim=0)

    def appearance(self, field: Sequence[TurnedField], points: Tensor) -> Appearance:
        """What points (1, P, 3) look like: each picture's answer, those on its side of the object before others."""
        answers, sides = [], []
        for one in field:
            turned = _turned(points, one.azimuth_deg)
            answers.append(self._network.appearance(one.field, turned))
            sides.append(-turned[..., 1])  # its camera is on -Y
        weight = (torch.stack(sides) * _FACING).softmax(dim=0)
        rgb, front, elsewhere = (torch.stack(part) for part in zip(*answers, strict=True))
        return Appearance((rgb * weight[:, :, None]).sum(0), (front * weight).sum(0), (elsewhere * weight).sum(0))


def _turned(points: Tensor, azimuth_deg: float) -> Tensor:
    """Points (..., 3) in the world of a picture that stands at an azimuth."""
    if azimuth_deg == 0:
        return points
    angle = torch.tensor(radians(azimuth_deg), dtype=points.dtype, device=points.device)
    cosine, sine = angle.cos(), angle.sin()
    x, y, z = points.unbind(-1)
    return torch.stack([cosine * x + sine * y, cosine * y - sine * x, z], dim=-1)

"""Pictures beside the first one shape the field, too.

Nothing is where one of them shows background, and every ray through its silhouette meets something: where the field is
sure of nothing along a ray, the likeliest place is lifted, not much deeper than the silhouette is wide there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mv3d.lift.silhouettes import outline_distance
from mv3d.model.frustum import Frustum
from mv3d.model.picture_rays import Solid, ask_rays
from mv3d.model.posed_picture import PosedPicture

_OUTLINE_PX = 128
_RAYS_PX = 96
_LOGITS_PER_RADIUS = 128.0  # how steep occupancy is at an outline: two for a cell of the surface's grid
_STEEPEST = 8.0
_DEEPEST = 1.5  # how many times deeper than to its outline a lifted part may be
_LEAST_DEPTH = 0.025  # of a lifted part, frame radii


@dataclass(frozen=True, eq=False)
class _SilhouetteMaps:
    """What a picture says of the rays through it: maps (1, 1, S, S) beside its pose (1, 2)."""

    pose: Tensor
    within: Tensor
    """Distance to the outline in frame radii, positive inside."""
    lacking: Tensor | None = None
    """Logits that a ray's fullest place lacks to be surely full."""
    likeliest: Tensor | None = None
    """That place, across the slices of `mv3d.model.frustum`."""


class CarvedSolid:
    """A coarse stage that heeds the silhouettes of pictures."""

    def __init__(self, solid: Solid, field: Any, pictures: Sequence[PosedPicture]) -> None:
        self.frustum: Frustum = solid.frustum
        self._solid = solid
        self._silhouettes = [_silhouette(picture) for picture in pictures]
        asked = []
        for picture, one in zip(pictures, self._silhouettes, strict=True):  # while nothing is lifted yet
            maps = ask_rays(self, field, picture.rgba[3], one.pose, min(_RAYS_PX, picture.size_px))
            asked.append(_SilhouetteMaps(one.pose, one.within, *(part[None, None] for part in maps)))
        self._silhouettes = asked

    def occupancy_logits(self, field: Any, points: Tensor) -> Tensor:
        """Logits (1, P) of points (1, P, 3) being inside the object and all silhouettes."""
        logits = plain = self._solid.occupancy_logits(field, points)
        withins = []
        for one in self._silhouettes:
            at = self.frustum.project(points, one.pose.to(points))
            within = _look_up(one.within, at)
            withins.append(within)
            if one.lacking is not None and one.likeliest is not None:
                off = (at[..., 2] - _look_up(one.likeliest, at)).abs()
                near = _LEAST_DEPTH + _DEEPEST * within.clamp(min=0) - off
                lifted = torch.minimum(plain + _look_up(one.lacking, at), near * _LOGITS_PER_RADIUS)
                logits = torch.maximum(logits, lifted)
        for within in withins:
            logits = torch.minimum(logits, (within * _LOGITS_PER_RADIUS).clamp(-_STEEPEST, _STEEPEST))
        return logits


def _silhouette(picture: PosedPicture) -> _SilhouetteMaps:
    alpha = picture.resized(min(_OUTLINE_PX, picture.size_px)).rgba[3].cpu().numpy()
    within = torch.from_numpy(outline_distance(alpha, 0)) * (2 / len(alpha))
    return _SilhouetteMaps(picture.pose[None], within[None, None])


def _look_up(picture: Tensor, at: Tensor) -> Tensor:
    """Bilinear look-up of (1, 1, S, S) at u and v of (1, P, 3); returns (1, P)."""
    found = F.grid_sample(picture.to(at), at[:, None, :, :2], align_corners=False, padding_mode="border")
    return found[:, 0, 0]

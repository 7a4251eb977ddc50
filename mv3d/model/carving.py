"""Pictures beside the first one shape the field, too: nothing is where one of them shows background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mv3d.lift.silhouettes import outline_distance
from mv3d.model.frustum import Frustum
from mv3d.model.posed_picture import PosedPicture
from mv3d.model.surface import Solid

_OUTLINE_PX = 128
_LOGITS_PER_RADIUS = 128.0  # how steep occupancy is at an outline: two for a cell of the surface's grid
_STEEPEST = 8.0


class CarvedSolid:
    """A coarse stage that heeds the silhouettes of pictures."""

    def __init__(self, solid: Solid, field: Any, pictures: Sequence[PosedPicture]) -> None:
        self.frustum: Frustum = solid.frustum
        self._solid = solid
        self._outlines = [_outline(picture) for picture in pictures]
        self._poses = [picture.pose[None] for picture in pictures]

    def occupancy_logits(self, field: Any, points: Tensor) -> Tensor:
        """Logits (1, P) of points (1, P, 3) being inside the object and all silhouettes."""
        logits = self._solid.occupancy_logits(field, points)
        for outline, pose in zip(self._outlines, self._poses, strict=True):
            uv = self.frustum.project(points, pose.to(points))[..., :2]
            within = F.grid_sample(outline.to(points), uv[:, None], align_corners=False, padding_mode="border")[:, 0, 0]
            logits = torch.minimum(logits, within.to(logits))
        return logits


def _outline(picture: PosedPicture) -> Tensor:
    """Logits (1, 1, S, S) of rays passing within a picture's silhouette."""
    alpha = picture.resized(min(_OUTLINE_PX, picture.size_px)).rgba[3].cpu().numpy()
    radii = torch.from_numpy(outline_distance(alpha, 0)) * (2 / len(alpha))
    return (radii * _LOGITS_PER_RADIUS).clamp(-_STEEPEST, _STEEPEST)[None, None]

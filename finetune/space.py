"""What an orbit's views tell of space: which points are seen to be empty, and where the visible surface is.

Direct supervision of the coarse volume's field. It is found from this many times faster than from rendered views alone.
Lengths are frame radii (see `mv3d.model.volume`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import radians, sin

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mv3d.cameras import Camera

_MARGIN = 0.02  # in front of a surface: depth maps are of the pixel's centre, and the field has voxels
_VISIBLE = 0.5  # alpha
_SPREAD = 0.08  # of points drawn near the surface


@dataclass(frozen=True, eq=False)
class SeenSpace:
    """The views of one orbit, ready to be asked about points."""

    rgba: Tensor
    """(V, 4, S, S), straight."""
    depth: Tensor
    """(V, S, S) along the viewing axis, in frame radii; 0 where nothing is or nothing is known."""
    cam_from_world: Tensor
    """(V, 4, 4), in frame radii."""
    focal: Tensor
    """(V,), in halves of the picture's width."""
    centre: Tensor
    """(V, 2), the principal point in such halves from the picture's middle, +v down."""

    @classmethod
    def of(cls, rgba: Tensor, depth: np.ndarray, cameras: Sequence[Camera]) -> SeenSpace:
        """Gather views (V, 4, S, S), their depth (V, S, S) in world units, and their cameras.

        The first camera's frame is what lengths are measured by.
        """
        frame_radius = cameras[0].radius * sin(radians(cameras[0].fov_deg) / 2)
        matrices = np.stack([camera.cam_from_world for camera in cameras])
        matrices[:, :3, 3] /= frame_radius
        in_radii = torch.from_numpy(depth.astype(np.float32) / frame_radius)
        focal = torch.tensor([camera.focal_px / (camera.width_px / 2) for camera in cameras])
        centre = torch.tensor([(c.cx_px / (c.width_px / 2) - 1, c.cy_px / (c.height_px / 2) - 1) for c in cameras])
        return cls(rgba, in_radii, torch.from_numpy(matrices).float(), focal, centre)

    def occupancy(self, points: Tensor) -> Tensor:
        """Whether points (P, 3) may be inside the object, (P,) in [0, 1]: no view sees them empty.

        A view does so where its silhouette leaves them out (the visual hull: Laurentini 1994), and where it sees a
        surface behind them.
        """
        in_cam = points @ self.cam_from_world[:, :3, :3].transpose(1, 2) + self.cam_from_world[:, None, :3, 3]
        distance = -in_cam[..., 2]
        uv = in_cam[..., :2] * in_cam.new_tensor([1.0, -1.0]) * (self.focal[:, None] * distance.reciprocal())[..., None]
        uv = uv + self.centre[:, None]
        alpha = F.grid_sample(self.rgba[:, 3:], uv[:, None], align_corners=False)[:, 0, 0]
        depth = F.grid_sample(self.depth[:, None], uv[:, None], mode="nearest", align_corners=False)[:, 0, 0]
        seen_empty = (depth > 0) & (distance < depth - _MARGIN)
        return alpha.masked_fill(seen_empty, 0).amin(dim=0).clamp(0, 1)

    def surface(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random visible points (count, 3) and their colours (3, count)."""
        visible = ((self.depth > 0) & (self.rgba[:, 3] > _VISIBLE)).nonzero()
        assert len(visible), "neither depth maps nor anything to see"
        view, row, column = visible[torch.randint(len(visible), (count,), generator=generator)].unbind(-1)
        size = self.depth.shape[-1]
        depth = self.depth[view, row, column]
        u, v = self.centre[view].unbind(-1)
        x, y = (((at + 0.5) / (size / 2) - 1 - c) / self.focal[view] * depth for at, c in ((column, u), (row, v)))
        in_cam = torch.stack([x, -y, -depth], dim=-1)
        turned = in_cam - self.cam_from_world[view, :3, 3]
        points = (turned[:, None] @ self.cam_from_world[view, :3, :3])[:, 0]
        return points, self.rgba[view, :3, row, column].T

    def points_to_ask(self, count: int, generator: torch.Generator) -> Tensor:
        """Points (count, 3), half of them near the visible surface, where most is to be learnt."""
        anywhere = torch.rand(count, 3, generator=generator) * 2 - 1
        near, _ = self.surface(count // 2, generator)
        anywhere[: len(near)] = near + _SPREAD * torch.randn(near.shape, generator=generator)
        return anywhere

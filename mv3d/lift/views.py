"""What the silhouettes of all views say about points in the world."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mv3d.cameras import Camera
from mv3d.lift.silhouettes import outline_distance

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]

_POINTS_AT_ONCE = 50_000  # fit into a core's cache


class SilhouetteViews:
    """Views as signed distances to their outlines; ``alpha`` is (N, height, width) in [0, 1]."""

    def __init__(self, alpha: NDArray[np.float32], cameras: Sequence[Camera]) -> None:
        self.cameras = tuple(cameras)
        self._alpha = alpha
        self._margin_px = _margin_px(alpha[0])

    @cached_property
    def _outlines_px(self) -> list[NDArray[np.float32]]:
        return [outline_distance(picture, self._margin_px) for picture in self._alpha]

    def inner_px(self, view: int) -> NDArray[np.float32]:
        """How far from the background the object's pixels of one view are, roughly, in pixels; 0 off it."""
        return ndimage.distance_transform_edt(self._alpha[view] >= 0.5).astype(np.float32)

    @cached_property
    def centre(self) -> Array:
        """The point nearest to all viewing axes, (3,)."""
        forward = -np.stack([camera.world_from_cam[:3, 2] for camera in self.cameras])
        across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
        wanted = (across @ self._positions[:, :, None]).sum(axis=0)[:, 0]
        return np.linalg.lstsq(across.sum(axis=0), wanted, rcond=None)[0]

    @property
    def reach(self) -> float:
        """Half the side of the cube around the centre that the pictures take in."""
        slopes = np.array([max(c.width_px, c.height_px) / (2 * c.focal_px) for c in self.cameras])
        return float((self._distances * slopes / np.maximum(1 - slopes, 0.3)).max())

    @property
    def pixel_size(self) -> float:
        """The world's length that one pixel spans at the centre."""
        return float(np.mean(self._distances / [camera.focal_px for camera in self.cameras]))

    @property
    def _positions(self) -> Array:
        return np.stack([camera.position for camera in self.cameras])

    @property
    def _distances(self) -> Array:
        return np.linalg.norm(self._positions - self.centre, axis=1)

    def outline_px(self, view: int) -> NDArray[np.float32]:
        """Signed distance to the outline of one view, in pixels, at its pixel centres (height, width)."""
        inner = slice(self._margin_px, -self._margin_px)
        return self._outlines_px[view][inner, inner]

    def lowest(self, points: Array, count: int) -> NDArray[np.float32]:
        """The ``count`` smallest of the views' distances at points (P, 3), ascending: (count, P).

        A view's distance is that to its silhouette cone: world units, positive inside. The smallest is the visual
        hull's; the next are those of the hull with one view overruled, with two, and so on.
        """
        import torch  # its look-ups in pictures are seven times faster than scipy's

        out = torch.full((count, len(points)), torch.inf)
        for start in range(0, len(points), _POINTS_AT_ONCE):
            at = torch.from_numpy(np.ascontiguousarray(points[start : start + _POINTS_AT_ONCE].T, dtype=np.float32))
            ranks = out[:, start : start + _POINTS_AT_ONCE]
            for view in range(len(self.cameras)):
                value = self._cone_distance(view, at)
                for rank in ranks:
                    higher = torch.maximum(rank, value)
                    torch.minimum(rank, value, out=rank)
                    value = higher
        return out.numpy()

    def _cone_distance(self, view: int, points: Tensor) -> Tensor:
        """One view's distance (P,) at points (3, P)."""
        import torch
        from torch.nn.functional import grid_sample

        matrix, outline_px = self._projections[view]
        across, down, depth = torch.addmm(matrix[:, 3:], matrix[:, :3], points)
        at = torch.stack([across / depth, down / depth], dim=1)[None, None]
        value_px = grid_sample(outline_px[None, None], at, padding_mode="border", align_corners=False)[0, 0, 0]
        value = value_px * depth * (1 / self.cameras[view].focal_px)
        return torch.where(depth > 0, value, torch.inf)  # a camera says nothing about what is behind it

    @cached_property
    def _projections(self) -> list[tuple[Tensor, Tensor]]:
        """Of every view a matrix (3, 4), from points to column, row (-1 to 1, times depth) and depth; the outline."""
        import torch

        out = []
        for camera, outline_px in zip(self.cameras, self._outlines_px, strict=True):
            right, up, back = camera.cam_from_world[:3]
            height, width = outline_px.shape
            column = -(camera.cx_px + self._margin_px) * back + camera.focal_px * right
            row = -(camera.cy_px + self._margin_px) * back - camera.focal_px * up
            matrix = np.stack([column * (2 / width) + back, row * (2 / height) + back, -back])
            out.append((torch.from_numpy(matrix).float(), torch.from_numpy(outline_px)))
        return out


def _margin_px(picture: NDArray) -> int:
    return max(picture.shape) // 8

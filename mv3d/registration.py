"""Several pictures of one object, each framed by itself, brought to one scale and one middle.

A camera that looks at the object from the side shows it larger or smaller than its first picture does. What two
silhouettes have in common is where planes through both cameras touch the object (the frontier points of Cipolla and
Giblin, "Visual motion of curves and surfaces", 2000): seen about the line between the cameras, both are equally wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from mv3d.cameras import Camera
from mv3d.image import FILL, Framing, framing_of
from mv3d.pixels import Frames

Array = NDArray[np.float64]
Pose = tuple[float, float]
"""Azimuth and elevation in degrees."""

_NEAR_DEG = 25.0  # between a camera's axis and another camera, behind or before the object: planes do not touch it
_SIDEWAYS = 0.2  # sine between two directions, from which they have a side in common
_PRIOR = 0.03  # how much less a silhouette's own middle and scale count than what it shares with others


@dataclass(frozen=True, eq=False)
class _Outline:
    """A picture's outline: corners (C, 2) of its convex hull in pixels, its camera, and its own framing."""

    corners: Array
    camera: Camera
    own: Framing

    def uv(self, change: Array) -> Array:
        """Corners in a frame whose half side is 1; ``change`` (3,): of its scale's logarithm, and of its middle."""
        middle = np.array([self.own.x, self.own.y])
        return ((self.corners - middle) / self.own.half - change[1:]) * np.exp(change[0])


def register(cut_outs: Sequence[Frames], poses: Sequence[Pose]) -> list[Framing]:
    """Frame pictures (H, W, 4) of one object so that all are in one frame's scale, and none leaves it.

    Args:
        cut_outs: each with its own size and scale.
        poses: of their cameras, which are taken to be as far away as a frame's.

    Raises:
        Mv3dError: if one is transparent everywhere.
    """
    if len(cut_outs) == 1:
        return [framing_of(cut_outs[0])]
    outlines = [_outline(rgba, pose) for rgba, pose in zip(cut_outs, poses, strict=True)]
    pairs = list(combinations(outlines, 2))
    indices = list(combinations(range(len(outlines)), 2))

    def differences(flat: Array) -> Array:
        changes = np.concatenate([np.zeros(3), flat]).reshape(-1, 3)
        uvs = [outline.uv(change) for outline, change in zip(outlines, changes, strict=True)]
        found = [_PRIOR * flat]
        for (i, j), (one, other) in zip(indices, pairs, strict=True):
            found.append(_difference(one.camera, uvs[i], other.camera, uvs[j]))
        return np.concatenate(found)

    from scipy.optimize import least_squares  # imports much, and most orbits are of one picture

    found = least_squares(differences, np.zeros(3 * len(outlines) - 3))
    changes = np.concatenate([np.zeros(3), found.x]).reshape(-1, 3)
    reach = max(np.linalg.norm(o.uv(change), axis=1).max() for o, change in zip(outlines, changes, strict=True))
    return [_framing(outline.own, change, reach / FILL) for outline, change in zip(outlines, changes, strict=True)]


def _framing(own: Framing, change: Array, enlarged: float) -> Framing:
    x, y = np.array([own.x, own.y]) + change[1:] * own.half
    return Framing(float(x), float(y), float(own.half * enlarged / np.exp(change[0])))


def _outline(rgba: Frames, pose: Pose) -> _Outline:
    rows, columns = np.nonzero(rgba[..., 3] > 0.5)
    own = framing_of(rgba)
    corners = np.concatenate([np.stack([columns + dx, rows + dy], axis=1) for dx in (0, 1) for dy in (0, 1)])
    if len(corners):
        corners = corners[ConvexHull(corners).vertices]
    else:  # so faint that nothing in it is sure
        corners = np.array([[own.x + dx * own.half, own.y + dy * own.half] for dx in (-1, 1) for dy in (-1, 1)])
    return _Outline(corners.astype(np.float64), Camera.looking_at_origin(*pose, size_px=2), own)


def _difference(one: Camera, one_uv: Array, other: Camera, other_uv: Array) -> Array:
    """By how much the ends of two silhouettes differ, in frame radii, along the sides that both show."""
    baseline = other.position - one.position
    length = np.linalg.norm(baseline)
    away = np.degrees(np.arccos(np.clip(np.abs(baseline @ one.position) / max(length, 1e-9) / one.radius, 0, 1)))
    if length > 1e-6 and away > _NEAR_DEG:
        baseline = baseline / length
        across = -(one.position - (one.position @ baseline) * baseline)
        across /= np.linalg.norm(across)
        side = np.cross(baseline, across)
        ends = []
        for camera, uv in ((one, one_uv), (other, other_uv)):
            rays = camera.directions(uv + 1)
            angles = np.arctan2(rays @ side, rays @ across)
            ends.append([angles.min(), angles.max()])
        return (np.array(ends[0]) - ends[1]) * one.radius / _frame_radius(one)
    # One camera stands behind the object, or beside the other one: both see the side across, and perhaps what is up.
    behind = one.position @ other.position < 0
    sides = [np.cross(one.position, other.position) / one.radius / other.radius]
    if np.linalg.norm(sides[0]) < _SIDEWAYS:
        sides = [one.world_from_cam[:3, 0], one.world_from_cam[:3, 1]]
    found = []
    for side in sides:
        ends = []
        for camera, uv in ((one, one_uv), (other, other_uv)):
            right, up = side @ camera.world_from_cam[:3, 0], side @ camera.world_from_cam[:3, 1]
            along = (uv[:, 0] * right - uv[:, 1] * up) / np.hypot(right, up)
            ends.append([along.min(), along.max()])
        found.append(np.array(ends[0]) - ends[1])
    return np.concatenate(found) * (0.5 if behind else 1.0)  # perspective makes two sides differ a little


def _frame_radius(camera: Camera) -> float:
    return camera.radius * float(np.sin(np.radians(camera.fov_deg / 2)))

"""Bodies made of upright boxes, with a colour for each side: as a mesh, and as views made by intersecting rays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mv3d.cameras import Camera
from mv3d.mesh import Mesh, Texture
from mv3d.orbit import Orbit
from mv3d.pixels import Frames

# Left (-X), right, front (-Y), back, bottom (-Z), top.
SIDE_COLOURS = np.array(
    [(210, 200, 40), (40, 60, 200), (200, 40, 40), (40, 160, 60), (90, 90, 90), (230, 230, 220)], dtype=np.uint8
)
LEFT, RIGHT, FRONT, BACK, BOTTOM, TOP = range(6)
_TILE_PX = 8


@dataclass(frozen=True, eq=False)
class Box:
    low: tuple[float, float, float]
    high: tuple[float, float, float]


CRATE = Box((-0.25, -0.35, -0.3), (0.15, 0.25, 0.4))
TABLE = (
    Box((-0.5, -0.35, 0.2), (0.5, 0.35, 0.3)),
    *(Box((x, y, -0.3), (x + 0.1, y + 0.1, 0.25)) for x in (-0.5, 0.4) for y in (-0.35, 0.25)),
)


def make_block(box: Box = CRATE) -> Mesh:
    """The box as 12 triangles, each side a tile of the texture."""
    bits = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    vertices = np.where(bits, box.high, box.low)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces, uv = [], []
    for side, (a, b, c, d) in enumerate(quads):
        left, right = (side + 0.25) / 6, (side + 0.75) / 6
        places = np.array([(left, 0.25), (right, 0.25), (right, 0.75), (left, 0.75)])
        faces += [(a, b, c), (a, c, d)]
        uv += [places[[0, 1, 2]], places[[0, 2, 3]]]
    pixels = np.broadcast_to(SIDE_COLOURS.repeat(_TILE_PX, axis=0), (_TILE_PX, 6 * _TILE_PX, 3))
    return Mesh(vertices, np.array(faces), Texture(np.ascontiguousarray(pixels), np.array(uv)))


def view_boxes(boxes: Sequence[Box], cameras: Sequence[Camera], samples_per_side: int = 3) -> Orbit:
    """The views of a union of boxes, unlit."""
    return Orbit(np.stack([_view(boxes, camera, samples_per_side) for camera in cameras]), tuple(cameras))


def _view(boxes: Sequence[Box], camera: Camera, per_side: int) -> Frames:
    directions = camera.directions(camera.pixel_grid(per_side))
    nearest = np.full(directions.shape[:2], np.inf)
    side_seen = np.zeros(directions.shape[:2], dtype=int)
    for box in boxes:
        with np.errstate(divide="ignore"):
            walls = (np.array([box.low, box.high])[:, None, None] - camera.position) / directions
        entry, leave = walls.min(axis=0), walls.max(axis=0).min(axis=-1)
        distance = entry.max(axis=-1)
        hit = (distance < leave) & (distance > 0) & (distance < nearest)
        axis = entry.argmax(axis=-1)
        enters_high = np.take_along_axis(directions, axis[..., None], axis=-1)[..., 0] < 0
        nearest = np.where(hit, distance, nearest)
        side_seen = np.where(hit, 2 * axis + enters_high, side_seen)
    alpha = np.isfinite(nearest)[..., None].astype(np.float32)
    samples = np.concatenate([SIDE_COLOURS[side_seen] / np.float32(255) * alpha, alpha], axis=-1)
    height, width = camera.height_px, camera.width_px
    mean = samples.reshape(height, per_side, width, per_side, 4).mean(axis=(1, 3))
    rgb = mean[..., :3] / np.maximum(mean[..., 3:], 1e-6)
    return np.concatenate([rgb, mean[..., 3:]], axis=-1).astype(np.float32)


def silhouette_iou(a: Frames, b: Frames) -> float:
    """Intersection over union of two RGBA pictures' silhouettes."""
    in_a, in_b = a[..., 3] >= 0.5, b[..., 3] >= 0.5
    return float((in_a & in_b).sum() / (in_a | in_b).sum())

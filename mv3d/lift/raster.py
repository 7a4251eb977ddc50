"""A small triangle rasteriser: depth pictures for visibility, texel positions for baking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mv3d.cameras import Camera
from mv3d.mesh import Mesh

Array = NDArray[np.float64]

_CANDIDATES_AT_ONCE = 2_000_000  # pairs of pixel and triangle, about 300 MB
_EDGE = -1e-9  # a pixel centre on a shared edge belongs to one of its triangles at least


@dataclass(frozen=True, eq=False)
class Raster:
    """The triangle seen at each of the P covered pixels: the pixel's place, the triangle, its weights and depth."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    faces: NDArray[np.int64]
    barycentric: Array
    """Weights of the triangle's corners on the picture plane, (P, 3)."""
    depth: Array


def rasterize(corners_px: Array, corner_depth: Array, width_px: int, height_px: int) -> Raster:
    """Find the nearest triangle at each pixel centre.

    ``corners_px`` is (F, 3, 2) in pixels of the picture, ``corner_depth`` (F, 3) and positive; triangles of either
    winding are seen. Depth is interpolated perspectively.
    """
    lower = np.ceil(corners_px.min(axis=1) - 0.5).clip(0).astype(np.int64)
    upper = np.floor(corners_px.max(axis=1) - 0.5).clip(max=[width_px - 1, height_px - 1]).astype(np.int64)
    spans = (upper - lower + 1).clip(0)
    num_candidates = spans.prod(axis=1)
    chunk_of_face = np.cumsum(num_candidates) // _CANDIDATES_AT_ONCE
    hits = [
        _hits(np.flatnonzero(chunk_of_face == chunk), corners_px, corner_depth, lower, spans)
        for chunk in np.unique(chunk_of_face)
    ] or [_hits(np.arange(0), corners_px, corner_depth, lower, spans)]
    columns, rows, faces, barycentric, depth = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    is_flat = len(depth) == 0 or depth.min() == depth.max()
    nearest_last = np.arange(len(depth)) if is_flat else np.argsort(-depth, kind="stable")
    winner = np.full((height_px, width_px), -1)
    winner[rows[nearest_last], columns[nearest_last]] = nearest_last  # the last of equal indices stays
    kept = winner[winner >= 0]
    return Raster(rows[kept], columns[kept], faces[kept], barycentric[kept], depth[kept])


def render_depth(mesh: Mesh, camera: Camera) -> Array:
    """Render the depth along the viewing axis at each pixel centre, (height, width); infinite where nothing is."""
    pixels, depth = camera.project(mesh.vertices)
    in_front = (depth[mesh.faces] > 1e-6 * np.abs(depth).max()).all(axis=1)
    faces = mesh.faces[in_front]
    seen = rasterize(pixels[faces], depth[faces], camera.width_px, camera.height_px)
    picture = np.full((camera.height_px, camera.width_px), np.inf)
    picture[seen.rows, seen.columns] = seen.depth
    return picture


def _hits(faces: NDArray[np.int64], corners_px: Array, corner_depth: Array, lower: NDArray, spans: NDArray) -> tuple:
    """All pairs of a pixel centre and one of the triangles ``faces`` around it."""
    counts = spans[faces].prod(axis=1)
    face = np.repeat(faces, counts)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    column = lower[face, 0] + place % np.maximum(spans[face, 0], 1)
    row = lower[face, 1] + place // np.maximum(spans[face, 0], 1)
    origin = corners_px[:, 0]
    to_next, to_last = corners_px[:, 1] - origin, corners_px[:, 2] - origin
    twice_area = _cross(to_next, to_last)
    with np.errstate(divide="ignore", invalid="ignore"):  # degenerate triangles have no inside
        per_px = np.concatenate([to_last, to_next], axis=1) / twice_area[:, None]
        x, y = column + 0.5 - origin[face, 0], row + 0.5 - origin[face, 1]
        weight_b = x * per_px[face, 1] - y * per_px[face, 0]
        weight_c = y * per_px[face, 2] - x * per_px[face, 3]
    weights = np.stack([1 - weight_b - weight_c, weight_b, weight_c], axis=1)
    inside = (weights >= _EDGE).all(axis=1)
    weights, face = weights[inside], face[inside]
    depth = 1 / (weights / corner_depth[face]).sum(axis=1)
    return column[inside], row[inside], face, weights, depth


def _cross(a: Array, b: Array) -> Array:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]

"""Coloured points on a mesh's surface, from which Gaussian splats start, and the PLY files of points."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mv3d.mesh import Mesh

_GREY = 128


def sample_points(mesh: Mesh, count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Draw points evenly over the surface: places (count, 3) and sRGB colours (count, 3), grey without a texture."""
    random = np.random.default_rng(seed)
    corners = mesh.vertices[mesh.faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = random.choice(len(corners), size=count, p=areas / areas.sum())
    # Even over a triangle: square roots, Turk, "Generating random points in triangles", Graphics Gems, 1990.
    root, along = np.sqrt(random.random(count)), random.random(count)
    weights = np.stack([1 - root, root * (1 - along), root * along], axis=1)
    points = np.einsum("nc,ncd->nd", weights, corners[face])
    if mesh.texture is None:
        return points, np.full((count, 3), _GREY, dtype=np.uint8)
    return points, mesh.texture.at(np.einsum("nc,ncd->nd", weights, mesh.texture.corner_uv[face]))


def encode_ply(columns: Mapping[str, NDArray]) -> bytes:
    """Encode points as binary little-endian PLY, one property per column (N,): uint8 as uchar, all else as float."""
    kinds = {name: "u1" if column.dtype == np.uint8 else "<f4" for name, column in columns.items()}
    (count,) = {len(column) for column in columns.values()}
    rows = np.empty(count, dtype=list(kinds.items()))
    for name, column in columns.items():
        rows[name] = column
    properties = [f"property {'uchar' if kind == 'u1' else 'float'} {name}" for name, kind in kinds.items()]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}", *properties, "end_header", ""]
    return "\n".join(header).encode() + rows.tobytes()


def encode_points(points: NDArray[np.float64], colours: NDArray[np.uint8]) -> bytes:
    """Encode coloured points as PLY, the way Open3D and nerfstudio name the properties."""
    names = ("x", "y", "z", "red", "green", "blue")
    return encode_ply(dict(zip(names, (*points.T, *colours.T), strict=True)))

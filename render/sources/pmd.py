"""0 A.D.'s compiled meshes (PMD, version 4): triangles, one or more texture layers, bones and places for props."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from render.errors import Unusable
from render.sources.binary import Cursor

_NO_BONE = 255


@dataclass(frozen=True, eq=False)
class PmdMesh:
    """A mesh in its rest pose, Y up."""

    vertices: NDArray[np.float32]
    """(V, 3)."""
    normals: NDArray[np.float32]
    uv: NDArray[np.float32]
    """The first layer's texture coordinates, V up, (V, 2)."""
    faces: NDArray[np.uint16]
    """(T, 3)."""
    props: dict[str, NDArray[np.float64]]
    """Where props go by their place's name: mesh-from-prop, (4, 4)."""


def read_pmd(data: bytes, name: str = "mesh") -> PmdMesh:
    """Read a mesh.

    Raises:
        Unusable: if it is damaged or of another version.
    """
    cursor = Cursor(data, name)
    if cursor.skip(4) != b"PSMD" or (version := cursor.u32()) != 4:
        raise Unusable(f"{name} is no PMD mesh of version 4")
    del version
    cursor.skip(4)
    count, layers = cursor.u32(), cursor.u32()
    vertex = [("position", "<f4", 3), ("normal", "<f4", 3), ("uv", "<f4", (layers, 2)), ("bones", "u1", 4)]
    vertices = cursor.array(np.dtype([*vertex, ("weights", "<f4", 4)]), count)
    faces = cursor.array(np.uint16, cursor.u32(), 3)
    if not layers or not len(faces) or faces.max() >= count:
        raise Unusable(f"{name} has no texture coordinates, no faces, or faces of vertices that are not there")
    bones = [_place(row) for row in cursor.array(np.float32, cursor.u32(), 7)]
    props = {}
    for _ in range(cursor.u32()):
        label = cursor.skip(cursor.u32()).decode("latin-1")
        place, bone = _place(cursor.array(np.float32, 7)), cursor.u8()
        if bone != _NO_BONE and bone >= len(bones):
            raise Unusable(f"{name} hangs a prop on a bone that is not there")
        props[label] = place if bone == _NO_BONE else bones[bone] @ place
    return PmdMesh(vertices["position"], vertices["normal"], vertices["uv"][:, 0], faces, props)


def _place(row: NDArray) -> NDArray[np.float64]:
    """A 4x4 transform from a translation and a quaternion (x, y, z, w)."""
    x, y, z, w = row[3:] / max(float(np.linalg.norm(row[3:])), 1e-12)
    transform = np.eye(4)
    transform[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    transform[:3, 3] = row[:3]
    return transform

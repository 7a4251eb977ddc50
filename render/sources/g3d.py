"""MegaGlest's models (G3D, version 4): meshes with frames of animation, of which the first is taken."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from render.errors import Unusable
from render.sources.binary import Cursor

_PATH_BYTES = 64
_PLAYER_COLOUR, _NOT_SHOWN = 1, 8  # bits of a mesh's properties: alpha is the player's colour; a glow


@dataclass(frozen=True, eq=False)
class G3dMesh:
    """One mesh of a model, Y up."""

    vertices: NDArray[np.float32]
    """(V, 3)."""
    normals: NDArray[np.float32]
    uv: NDArray[np.float32] | None
    """Texture coordinates, V up, (V, 2)."""
    faces: NDArray[np.uint32]
    """(T, 3)."""
    diffuse: NDArray[np.float32]
    """sRGB and opacity, (4,); applies where there is no texture."""
    texture: str | None
    """The picture's name beside the model."""
    player_colour: bool
    """Whether the picture's alpha says where the player's colour goes, not what is see-through."""


def read_g3d(data: bytes, name: str = "model") -> list[G3dMesh]:
    """Read a model's meshes, glows left out.

    Raises:
        Unusable: if it is damaged or of another version.
    """
    cursor = Cursor(data, name)
    if cursor.skip(4) != b"G3D\x04":
        raise Unusable(f"{name} is no G3D model of version 4")
    count = cursor.u16()
    cursor.skip(1)
    meshes = []
    for _ in range(count):
        cursor.skip(_PATH_BYTES)
        frames, vertices, indices = cursor.u32(), cursor.u32(), cursor.u32()
        material = cursor.array(np.float32, 8)
        properties, textures = cursor.u32(), cursor.u32()
        paths = [cursor.skip(_PATH_BYTES).split(b"\0")[0].decode("latin-1") for _ in range(textures.bit_count())]
        positions = cursor.array(np.float32, frames, vertices, 3)
        normals = cursor.array(np.float32, frames, vertices, 3)
        uv = cursor.array(np.float32, vertices, 2) if textures else None
        faces = cursor.array(np.uint32, indices // 3, 3)
        cursor.skip(indices % 3 * 4)
        if properties & _NOT_SHOWN or not frames or not len(faces):
            continue
        if faces.max() >= vertices:
            raise Unusable(f"{name} has faces of vertices that are not there")
        meshes.append(
            G3dMesh(
                vertices=positions[0],
                normals=normals[0],
                uv=uv,
                faces=faces,
                diffuse=np.clip(material[[0, 1, 2, 7]], 0, 1),
                texture=paths[0] if textures & 1 else None,
                player_colour=bool(properties & _PLAYER_COLOUR),
            )
        )
    return meshes


def fingerprints(meshes: Sequence[G3dMesh], folder: Path) -> tuple[str, str]:
    """Hashes of a model's shape (faces and texture coordinates, the same in all animations) and of shape and skin."""
    shape = _hash(*(part.tobytes() for m in meshes for part in (m.faces, *([] if m.uv is None else [m.uv]))))
    return shape, _hash(shape.encode(), *(_picture_bytes(folder, mesh) for mesh in meshes))


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def _picture_bytes(folder: Path, mesh: G3dMesh) -> bytes:
    path = folder / (mesh.texture or "")
    return path.read_bytes() if mesh.texture and path.is_file() else mesh.diffuse.tobytes()

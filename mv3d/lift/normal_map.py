"""A normal map: what a surface of few triangles has lost of a finer one is given back to its shading."""

from __future__ import annotations

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from mv3d.lift.texels import Texels
from mv3d.mesh import Mesh
from mv3d.pixels import to_uint8

Array = NDArray[np.float64]

_REACH = 0.03  # of the surface's size: how far away the finer surface is looked for
_STEP_BACK = 1e-4  # of the surface's size: before the start of a ray, so that it meets a surface that goes through it
_WORTH_DEG = 2.0  # what a map changes (root mean square) at least; less is not seen


def bake_normals(mesh: Mesh, corner_uv: Array, finer: Mesh, texels: Texels) -> NDArray[np.uint8] | None:
    """Bake a finer surface's normals into a tangent-space map, (S, S, 3); None where they are the mesh's own anyway.

    Red is along u, green along v (up in the picture, as glTF, USD and Blender have it), blue along the mesh's own
    normal; 0 to 255 is -1 to 1.

    Args:
        mesh: what the map is for.
        corner_uv: its layout, (F, 3, 2), as `mv3d.mesh.Texture` has it.
        finer: in the same place.
        texels: those of the layout.
    """
    normals = mesh.corner_normals()
    own = texels.unit(normals)
    wanted = _normals_of(finer, texels.interpolate(mesh.vertices[mesh.faces]), own)
    cosine = np.clip((own * wanted).sum(axis=1), -1, 1)
    if np.sqrt((np.degrees(np.arccos(cosine)) ** 2).mean()) < _WORTH_DEG:
        return None
    tangents, handedness = corner_tangents(mesh, corner_uv, normals)
    along_u = texels.interpolate(tangents)
    along_u -= own * (own * along_u).sum(axis=1, keepdims=True)
    along_u /= np.maximum(np.linalg.norm(along_u, axis=1, keepdims=True), 1e-12)
    along_v = handedness[texels.found.faces, None] * np.cross(own, along_u)
    local = np.stack([(wanted * axis).sum(axis=1) for axis in (along_u, along_v, own)], axis=1)
    return to_uint8(texels.picture(local / 2 + 0.5))


def corner_tangents(mesh: Mesh, corner_uv: Array, normals: Array) -> tuple[Array, Array]:
    """Unit tangents along u at the corners of each face, (F, 3, 3), and whether v is to their left (1) or right (-1).

    As viewers derive them from a file without tangents: MikkTSpace (Mikkelsen 2008), which glTF asks for, averages
    over the faces around a vertex, by their angles there, what lies in the plane of its normal.

    Args:
        mesh: the surface.
        corner_uv: (F, 3, 2).
        normals: (F, 3, 3), `Mesh.corner_normals`.
    """
    corners = mesh.vertices[mesh.faces]
    (one, other), (uv_one, uv_other) = ((a[:, 1] - a[:, 0], a[:, 2] - a[:, 0]) for a in (corners, corner_uv))
    turned = uv_one[:, 0] * uv_other[:, 1] - uv_one[:, 1] * uv_other[:, 0]
    handedness = np.where(turned < 0, -1.0, 1.0)
    along = (one * uv_other[:, 1:] - other * uv_one[:, 1:]) * handedness[:, None]
    along = np.repeat(along[:, None], 3, axis=1)
    along = _unit(along - normals * (normals * along).sum(axis=2, keepdims=True))
    to_next, to_last = (_unit(np.roll(corners, shift, axis=1) - corners) for shift in (-1, 1))
    angle = np.arccos(np.clip((to_next * to_last).sum(axis=2), -1, 1))
    kinds = np.concatenate(
        [
            mesh.faces.reshape(-1, 1),
            normals.reshape(-1, 3).round(4),
            corner_uv.reshape(-1, 2),
            np.repeat(handedness, 3)[:, None],
        ],
        axis=1,
    )
    kind = np.unique(kinds, axis=0, return_inverse=True)[1].reshape(-1)
    weighted = (along * angle[..., None]).reshape(-1, 3)
    sums: Array = np.stack([np.bincount(kind, column) for column in weighted.T], axis=1).astype(np.float64)
    return _unit(sums[kind]).reshape(-1, 3, 3), handedness


def _normals_of(finer: Mesh, points: Array, normals: Array) -> Array:
    """The finer surface's unit normals where the lines through points along normals (P, 3) meet it first.

    The normals themselves where nothing that looks the same way is near.
    """
    size = float(np.ptp(finer.extent, axis=0).max())
    back = _STEP_BACK * size
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(finer.vertices[finer.faces], dtype=np.float32))
    at_corners = finer.corner_normals()
    nearest = np.full(len(points), _REACH * size)
    out = normals.copy()
    for direction in (normals, -normals):
        rays = np.ascontiguousarray(direction, dtype=np.float32)
        found = scene.run((points - back * direction).astype(np.float32), rays, query="INTERSECT", output=1)
        away = np.abs(found["tfar"] - back)
        hit = np.flatnonzero((found["primID"] >= 0) & (away < nearest))
        u, v = found["u"][hit], found["v"][hit]
        there = np.einsum("pkc,pk->pc", at_corners[found["primID"][hit]], np.stack([1 - u - v, u, v], axis=1))
        alike = (there * normals[hit]).sum(axis=1) > 0
        nearest[hit[alike]] = away[hit[alike]]
        out[hit[alike]] = _unit(there[alike])
    return out


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)

"""What the ray caster draws: a loaded object flattened into arrays of triangles and its textures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import cos, radians, sin
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from render.errors import Unusable
from render.scene.materials import decode_picture, look_of
from render.sources.gltf import Wrap
from render.sources.loading import GREY

if TYPE_CHECKING:
    import trimesh

MAX_TRIANGLES = 3_000_000
_FLATTEST = 0.01  # smallest extent over largest; a rug or a picture has no turntable
_GREY = 0.4  # linear, of an object without colours
_CREASE_COS = cos(radians(40))

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RenderScene:
    """Triangles in the world (Z up, centred at the origin, largest extent 1), each corner on its own."""

    corners: Float32
    """Positions, (T, 3, 3)."""
    normals: Float32
    """Unit shading normals, (T, 3, 3)."""
    colours: Float32
    """Linear RGBA that multiplies the texture, (T, 3, 4)."""
    uv: Float32
    """Texture coordinates, V up, (T, 3, 2)."""
    texture: NDArray[np.int32]
    """Index into ``textures`` or -1, (T,)."""
    textures: tuple[NDArray[np.uint8], ...]
    """sRGB pictures with straight alpha, (H, W, 4), wrapped around where ``clamped`` does not say otherwise."""
    world_from_loaded: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    """How the loaded object was centred, scaled and turned, (4, 4)."""
    clamped: tuple[tuple[bool, bool], ...] = ()
    """Of every texture, whether its edges go on for ever along u and v; none does if empty."""

    @property
    def radius(self) -> float:
        """Radius of the smallest sphere around the origin that holds the object."""
        return float(np.sqrt(np.square(self.corners.astype(np.float64)).sum(axis=-1).max()))

    def turned(self, yaw_deg: float) -> RenderScene:
        """Turn the object counter-clockwise seen from above."""
        c, s = cos(radians(yaw_deg)), sin(radians(yaw_deg))
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=np.float32)
        world_from_loaded = np.eye(4)
        world_from_loaded[:3] = turn @ self.world_from_loaded[:3]
        return replace(
            self,
            corners=self.corners @ turn.T,
            normals=self.normals @ turn.T,
            world_from_loaded=world_from_loaded,
        )


def make_scene(loaded: trimesh.Scene, *, linear_colours: bool) -> RenderScene:
    """Flatten a loaded object (Z up) with its node transforms applied, then centre and scale it.

    Args:
        loaded: any trimesh scene; only its triangles count.
        linear_colours: material and vertex colours are linear light and not sRGB.

    Raises:
        Unusable: if it has no triangles or too many, is flat, damaged, or carries no colour information.
    """
    import trimesh

    parts = []
    pictures: dict[tuple[int, float | None, tuple[Wrap, Wrap]], int] = {}
    textures: list[NDArray[np.uint8]] = []
    coloured = False
    for node in loaded.graph.nodes_geometry:
        world_from_node, name = loaded.graph[node]
        mesh = loaded.geometry[name]
        if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
            continue
        if sum(len(part[0]) for part in parts) + len(mesh.faces) > MAX_TRIANGLES:
            raise Unusable(f"more than {MAX_TRIANGLES} triangles")
        look = look_of(mesh, linear_colours=linear_colours)
        coloured |= look.known
        index = -1
        if look.picture is not None:
            key = (id(look.picture), look.cutoff, look.wrap)
            if key not in pictures:
                pictures[key] = len(textures)
                textures.append(decode_picture(look))
            index = pictures[key]
        parts.append(
            (*_geometry(mesh, world_from_node), look.colours, look.uv, np.full(len(mesh.faces), index, np.int32))
        )
    if not parts:
        raise Unusable("no triangles")
    corners, normals, colours, uv, texture = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if not np.isfinite(corners).all():
        raise Unusable("coordinates that are not numbers")
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    extent = high - low
    if extent.min() < _FLATTEST * extent.max() or extent.max() == 0:
        raise Unusable(f"flat: extents {extent[0]:.3g} x {extent[1]:.3g} x {extent[2]:.3g}")
    if not coloured:
        if not loaded.metadata.get(GREY):
            raise Unusable("no colour information: no texture, material colour or vertex colours; ask for grey")
        colours[..., :3] = _GREY
    corners = ((corners - (low + high) / 2) / extent.max()).astype(np.float32)
    world_from_loaded = np.diag([*np.full(3, 1 / extent.max()), 1.0])
    world_from_loaded[:3, 3] = -(low + high) / 2 / extent.max()
    return RenderScene(
        corners,
        normals.astype(np.float32),
        colours.astype(np.float32),
        np.nan_to_num(uv).astype(np.float32),
        texture,
        tuple(textures),
        world_from_loaded,
        tuple((wrap[0] == "clamp", wrap[1] == "clamp") for _, _, wrap in pictures),
    )


def _geometry(mesh: trimesh.Trimesh, world_from_node: NDArray) -> tuple[NDArray, NDArray]:
    """Corners and shading normals, (T, 3, 3) each, in the world."""
    vertices = np.asarray(mesh.vertices, dtype=np.float64) @ world_from_node[:3, :3].T + world_from_node[:3, 3]
    corners = vertices[mesh.faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    given = mesh._cache.cache.get("vertex_normals")  # the property would make some up where the file has none
    if given is not None and len(given) == len(vertices):
        normals = np.asarray(given, dtype=np.float64) @ np.linalg.pinv(world_from_node[:3, :3])
        normals = normals[mesh.faces]
    else:
        normals = _smooth(corners, flat)
    unit_flat = _unit(flat)
    normals = _unit(normals)
    bad = ~(np.isfinite(normals).all(axis=-1, keepdims=True)) | (np.abs(normals).sum(axis=-1, keepdims=True) < 0.5)
    return corners, np.where(bad, unit_flat[:, None], normals)


def _smooth(corners: NDArray, flat: NDArray) -> NDArray:
    """Average the normals of the faces that meet at a point, except over creases."""
    span = float(np.ptp(corners, axis=(0, 1)).max()) or 1.0
    keys = np.round(corners.reshape(-1, 3) / span * 1e5)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    sums = np.stack([np.bincount(group, np.repeat(flat[:, k], 3)) for k in range(3)], axis=-1)
    average, own = _unit(sums)[group].reshape(-1, 3, 3), _unit(flat)[:, None]
    return np.where((average * own).sum(axis=-1, keepdims=True) > _CREASE_COS, average, own)


def _unit(vectors: NDArray) -> NDArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)

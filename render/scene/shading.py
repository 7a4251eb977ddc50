"""The colour of surfaces where rays meet them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from render.scene.lights import Lights
from render.scene.scene import RenderScene
from render.scene.textures import TextureStack

Float32 = NDArray[np.float32]


class Surface:
    """A scene's triangles, laid out for being looked up by rays: one column per value, so that memory is read in order.

    Args:
        scene: what is drawn.
        lights: lit by these, or, if None, shown in its own colours.
        footprint: distance between samples on a surface at the origin that faces the camera; chooses texture sizes.
    """

    def __init__(self, scene: RenderScene, lights: Lights | None, footprint: float) -> None:
        self._lights = lights
        self._textures = TextureStack(scene.textures, scene.clamped)
        self._texture = scene.texture
        self._copy = _copies(scene, self._textures, footprint)
        self._normals = _Columns(scene.normals) if lights is not None else None
        self._uv = _Columns(scene.uv) if (scene.texture >= 0).any() else None
        plain = bool((scene.colours == scene.colours[:, :1]).all())
        self._colours = None if plain else _Columns(scene.colours)
        self._plain = scene.colours[:, 0].copy()
        self._plain[:, :3] *= self._plain[:, 3:]
        self.opaque = bool((scene.colours[..., 3] == 1).all()) and self._textures.opaque
        """Whether rays end at the first hit."""

    def shade(self, triangle: NDArray[np.int32], u: Float32, v: Float32, facing: Float32, along: Float32) -> Float32:
        """Premultiplied linear RGBA (N, 4) of hits at barycentric ``u v`` of triangles.

        Args:
            triangle: (N,).
            u: weight of the second corner, (N,).
            v: weight of the third corner, (N,).
            facing: the triangles' own normals, of any length and side, (N, 3).
            along: directions of the rays, (N, 3).
        """
        if self._colours is None:
            rgba = self._plain.take(triangle, axis=0)
        else:
            rgba = np.stack(self._colours.at(triangle, u, v), axis=-1)
            rgba[:, :3] *= rgba[:, 3:]
        if self._uv is not None:
            painted = np.flatnonzero(self._texture.take(triangle) >= 0)
            if len(painted) == len(triangle):
                rgba *= self._textures.lookup(self._copy.take(triangle), *self._uv.at(triangle, u, v))
            elif len(painted):
                some = triangle[painted]
                rgba[painted] *= self._textures.lookup(
                    self._copy.take(some), *self._uv.at(some, u[painted], v[painted])
                )
        if self._lights is not None:
            rgba[:, :3] *= self._lights.irradiance(self.normals(triangle, u, v, facing, along).T)[:, None]
        return rgba

    def normals(self, triangle: NDArray[np.int32], u: Float32, v: Float32, facing: Float32, along: Float32) -> Float32:
        """Unit shading normals (3, N) on the side that is seen, which is the lit one however a triangle was wound."""
        assert self._normals is not None
        normals = np.stack(self._normals.at(triangle, u, v))
        scale = np.sqrt(np.square(normals).sum(axis=0))
        np.maximum(scale, 1e-20, out=scale)
        seen_from_behind = _dot(facing.T, along.T) > 0
        turned_away = _dot(normals, facing.T) < 0
        scale[seen_from_behind != turned_away] *= -1
        normals /= scale
        return normals


class _Columns:
    """Values at the corners (T, 3, C), looked up between them."""

    def __init__(self, corners: Float32) -> None:
        first = corners[:, 0]
        self._columns = [
            tuple(np.ascontiguousarray(part[:, c]) for part in (first, corners[:, 1] - first, corners[:, 2] - first))
            for c in range(corners.shape[-1])
        ]

    def at(self, triangle: NDArray[np.int32], u: Float32, v: Float32) -> list[Float32]:
        """Interpolated values, one (N,) for each column."""
        values = []
        for first, second, third in self._columns:
            value = second.take(triangle)
            value *= u
            value += first.take(triangle)
            rest = third.take(triangle)
            rest *= v
            value += rest
            values.append(value)
        return values


def _dot(a: Float32, b: Float32) -> Float32:
    """Of vectors (3, N)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _copies(scene: RenderScene, textures: TextureStack, footprint: float) -> NDArray[np.int32]:
    """The reduced copy of which a texel is about as large as a sample seen at the origin's distance, (T,)."""
    copies = np.zeros(len(scene.corners), dtype=np.int32)
    painted = np.flatnonzero(scene.texture >= 0)
    if not len(painted):
        return copies
    texels = scene.uv[painted].astype(np.float64) * textures.sizes(scene.texture[painted])[:, None]
    a, b = texels[:, 1] - texels[:, 0], texels[:, 2] - texels[:, 0]
    texel_area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    corners = scene.corners[painted].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    texels_per_sample = np.sqrt(texel_area / np.maximum(area, 1e-20)) * footprint
    halvings = np.clip(np.round(np.log2(np.maximum(texels_per_sample, 1e-9))), 0, 30).astype(np.int64)
    copies[painted] = textures.copies(scene.texture[painted], halvings)
    return copies

"""The CPU ray caster: embree finds the hits, numpy does the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from mv3d.cameras import Camera
from mv3d.orbit import Frames
from render.colour import linear_to_srgb
from render.lights import Lights
from render.scene import RenderScene
from render.textures import TextureStack

_MAX_LAYERS = 12  # see-through surfaces one behind the other
_STEP = 1e-4  # how far behind a see-through hit the ray goes on
_OPAQUE = 0.995
_GAP = 2e-5  # between surfaces modelled back to back in one place


def render_orbit(
    scene: RenderScene, cameras: Sequence[Camera], lights: Lights | None, samples_per_side: int = 2
) -> Frames:
    """Render every camera's view: float32 (N, H, W, 4), sRGB, straight alpha.

    Surfaces are two-sided and matte; see-through ones are composited front to back. Without ``lights`` the frames show
    the surfaces' own colour.
    """
    embree = EmbreeScene()
    TriangleMesh(embree, _separate_back_to_back(scene.corners))
    textures = TextureStack(scene.textures)
    facing = np.cross(scene.corners[:, 1] - scene.corners[:, 0], scene.corners[:, 2] - scene.corners[:, 0])
    footprint = cameras[0].radius / cameras[0].focal_px / samples_per_side
    levels = _texture_levels(scene, textures, footprint)
    surface = _Surface(scene, textures, facing, levels, lights)
    return np.stack([_render_view(surface, embree, camera, samples_per_side) for camera in cameras])


class _Surface:
    """Colour of the surface at hits."""

    def __init__(
        self, scene: RenderScene, textures: TextureStack, facing: NDArray, levels: NDArray, lights: Lights | None
    ) -> None:
        self.scene, self.textures, self.facing, self.levels, self.lights = scene, textures, facing, levels, lights

    def shade(self, triangle: NDArray, u: NDArray, v: NDArray, directions: NDArray) -> NDArray[np.float32]:
        """Premultiplied linear RGBA (N, 4) of hits seen along ``directions`` (N, 3)."""
        weights = np.stack([1 - u - v, u, v], axis=-1)[:, :, None].astype(np.float32)
        rgba = (self.scene.colours[triangle] * weights).sum(axis=1)
        rgba[:, :3] *= rgba[:, 3:]
        texture = self.scene.texture[triangle]
        painted = np.flatnonzero(texture >= 0)
        if len(painted):
            uv = (self.scene.uv[triangle[painted]] * weights[painted]).sum(axis=1)
            rgba[painted] *= self.textures.lookup(texture[painted], self.levels[triangle[painted]], uv)
        if self.lights is not None:
            normals = (self.scene.normals[triangle] * weights).sum(axis=1)
            normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-20)
            facing = self.facing[triangle]
            # The side that is seen is the side that is lit, whichever way the triangle was wound.
            facing = facing * -np.sign((facing * directions).sum(axis=-1, keepdims=True))
            normals = normals * np.where((normals * facing).sum(axis=-1, keepdims=True) < 0, -1, 1)
            rgba[:, :3] *= self.lights.irradiance(normals)[:, None]
        return rgba


def _render_view(surface: _Surface, embree: EmbreeScene, camera: Camera, samples_per_side: int) -> Frames:
    rows, columns = camera.height_px * samples_per_side, camera.width_px * samples_per_side
    grid = camera.pixel_grid(samples_per_side)
    window = _window(surface.scene, camera, samples_per_side)
    directions = camera.directions(grid[window]).reshape(-1, 3).astype(np.float32)
    out = np.zeros((rows, columns, 4), dtype=np.float32)
    if len(directions):
        origins = np.broadcast_to(camera.position.astype(np.float32), directions.shape)
        colours = _trace(surface, embree, np.ascontiguousarray(origins), directions)
        out[window] = colours.reshape(*out[window].shape)
    pixels = out.reshape(camera.height_px, samples_per_side, camera.width_px, samples_per_side, 4).mean(axis=(1, 3))
    alpha = pixels[..., 3:]
    rgb = linear_to_srgb(np.clip(pixels[..., :3] / np.maximum(alpha, 1e-6), 0, 1))
    return np.concatenate([np.where(alpha > 0, rgb, 0), np.minimum(alpha, 1)], axis=-1).astype(np.float32)


def _trace(surface: _Surface, embree: EmbreeScene, origins: NDArray, directions: NDArray) -> NDArray[np.float32]:
    """Premultiplied linear RGBA (N, 4) along rays."""
    out = np.zeros((len(directions), 4), dtype=np.float32)
    active = np.arange(len(directions))
    for _ in range(_MAX_LAYERS):
        hits = embree.run(origins, directions, query="INTERSECT", output=1)
        hit = np.flatnonzero(hits["primID"] >= 0)
        if not len(hit):
            break
        active, directions = active[hit], directions[hit]
        layer = surface.shade(hits["primID"][hit], hits["u"][hit], hits["v"][hit], directions)
        out[active] += layer * (1 - out[active, 3:])
        through = np.flatnonzero(out[active, 3] < _OPAQUE)
        if not len(through):
            break
        origins = origins[hit][through] + directions[through] * (hits["tfar"][hit][through, None] + np.float32(_STEP))
        active, directions = active[through], np.ascontiguousarray(directions[through])
    return out


def _window(scene: RenderScene, camera: Camera, samples_per_side: int) -> tuple[slice, slice]:
    """The part of the sample grid that the object's bounding box covers."""
    low, high = scene.corners.min(axis=(0, 1)), scene.corners.max(axis=(0, 1))
    box = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3)
    pixels, depth = camera.project(box)
    if (depth <= 0).any():
        return slice(None), slice(None)
    first = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - 1, 0) * samples_per_side
    last = np.maximum(np.ceil(pixels.max(axis=0)).astype(int) + 1, 0) * samples_per_side
    return slice(first[1], last[1]), slice(first[0], last[0])


def _texture_levels(scene: RenderScene, textures: TextureStack, footprint: float) -> NDArray[np.int64]:
    """The halving at which one texel is about as large as one sample seen at the origin's distance, (T,)."""
    levels = np.zeros(len(scene.corners), dtype=np.int64)
    painted = np.flatnonzero(scene.texture >= 0)
    if not len(painted):
        return levels
    texels = scene.uv[painted].astype(np.float64) * textures.level_sizes(scene.texture[painted])[:, None]
    a, b = texels[:, 1] - texels[:, 0], texels[:, 2] - texels[:, 0]
    texel_area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    corners = scene.corners[painted].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    texels_per_sample = np.sqrt(texel_area / np.maximum(area, 1e-20)) * footprint
    levels[painted] = np.clip(np.round(np.log2(np.maximum(texels_per_sample, 1e-9))), 0, 30)
    return levels


def _separate_back_to_back(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move triangles that lie in one plane but face opposite ways apart, so that each is seen from its own side."""
    exact = corners.astype(np.float64)
    normals = np.cross(exact[:, 1] - exact[:, 0], exact[:, 2] - exact[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-30)
    first = np.take_along_axis(normals, np.abs(normals).argmax(axis=-1)[:, None], axis=-1)
    side = np.where(first < 0, -1.0, 1.0)
    planes = np.concatenate([normals, (normals * exact.mean(axis=1)).sum(axis=-1, keepdims=True)], axis=-1) * side
    keys = np.round(planes * [1e3, 1e3, 1e3, 1e4]).astype(np.int64) @ np.array([1, 4099, 16_785_407, 68_719_476_767])
    _, plane = np.unique(keys, return_inverse=True)
    both = (np.bincount(plane, side[:, 0] > 0) > 0) & (np.bincount(plane, side[:, 0] < 0) > 0)
    moved = np.where(both[plane][:, None], normals * _GAP, 0)
    return np.ascontiguousarray(exact + moved[:, None], dtype=np.float32)

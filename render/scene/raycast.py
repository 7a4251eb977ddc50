"""The CPU ray caster: embree finds the hits, numpy does the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from mv3d.cameras import Camera
from mv3d.pixels import Frames
from mv3d.srgb import linear_to_srgb
from render.scene.lights import Lights
from render.scene.scene import RenderScene
from render.scene.shading import Surface

_MAX_LAYERS = 64  # see-through surfaces one behind the other; through a tree's crown there are more than a dozen
_STEP = 1e-4  # how far behind a see-through hit the ray goes on
_OPAQUE = 0.995
_GAP = 2e-5  # between surfaces modelled back to back in one place
_RAYS_AT_A_TIME = 1 << 15  # what is known about so many hits fits into a core's cache


def render_orbit(
    scene: RenderScene, cameras: Sequence[Camera], lights: Lights | None, samples_per_side: int = 2
) -> Frames:
    """Render every camera's view: float32 (N, H, W, 4), sRGB, straight alpha.

    Surfaces are two-sided and matte; see-through ones are composited front to back. Without ``lights`` the frames show
    the surfaces' own colour.
    """
    embree = EmbreeScene()
    TriangleMesh(embree, _separate_back_to_back(scene.corners))
    surface = Surface(scene, lights, cameras[0].radius / cameras[0].focal_px / samples_per_side)
    box = scene.corners.min(axis=(0, 1)), scene.corners.max(axis=(0, 1))
    return np.stack([_render_view(surface, embree, camera, samples_per_side, box) for camera in cameras])


def _render_view(
    surface: Surface, embree: EmbreeScene, camera: Camera, samples_per_side: int, box: tuple[NDArray, NDArray]
) -> Frames:
    frame = np.zeros((camera.height_px, camera.width_px, 4), dtype=np.float32)
    window = _window(box, camera)
    columns, rows = camera.sample_rays(samples_per_side)
    rows, columns = (
        rays[s.start * samples_per_side : s.stop * samples_per_side].astype(np.float32)
        for rays, s in zip((rows, columns), window, strict=True)
    )
    if not len(rows) or not len(columns):
        return frame
    directions = np.empty((len(rows), len(columns), 3), dtype=np.float32)
    for axis in range(3):
        np.add(rows[:, None, axis], columns[None, :, axis], out=directions[..., axis])
    directions = directions.reshape(-1, 3)
    samples = np.zeros((len(directions), 4), dtype=np.float32)
    origins = np.tile(camera.position.astype(np.float32), (min(len(directions), _RAYS_AT_A_TIME), 1))
    for start in range(0, len(directions), _RAYS_AT_A_TIME):
        some = slice(start, start + _RAYS_AT_A_TIME)
        _trace(surface, embree, origins[: len(directions[some])], directions[some], samples[some])
    samples = samples.reshape(len(rows) // samples_per_side, samples_per_side, -1, samples_per_side, 4)
    # Slices are added one by one because numpy's sum over a short axis is several times slower.
    lines = sum(samples[:, k] for k in range(1, samples_per_side)) + samples[:, 0]
    pixels = sum(lines[:, :, k] for k in range(1, samples_per_side)) + lines[:, :, 0]
    pixels *= np.float32(1 / samples_per_side**2)
    alpha = pixels[..., 3:]
    rgb = linear_to_srgb(np.clip(pixels[..., :3] / np.maximum(alpha, 1e-6), 0, 1))
    frame[window] = np.concatenate([np.where(alpha > 0, rgb, 0), np.minimum(alpha, 1)], axis=-1)
    return frame


def _trace(surface: Surface, embree: EmbreeScene, origins: NDArray, directions: NDArray, out: NDArray) -> None:
    """Put premultiplied linear RGBA along rays into ``out`` (N, 4), which is zero."""
    active: NDArray | None = None  # rays that go on; all if None
    for layer in range(_MAX_LAYERS):
        hits = embree.run(origins, directions, query="INTERSECT", output=1)
        hit = np.flatnonzero(hits["primID"] >= 0)
        if not len(hit):
            return
        active = hit if active is None else active[hit]
        along = directions.take(hit, axis=0)
        colours = surface.shade(
            hits["primID"].take(hit), hits["u"].take(hit), hits["v"].take(hit), hits["Ng"].take(hit, axis=0), along
        )
        if layer:
            before = out[active]
            colours *= 1 - before[:, 3:]
            colours += before
        out[active] = colours
        if surface.opaque:
            return
        through = np.flatnonzero(colours[:, 3] < _OPAQUE)
        if not len(through):
            return
        active, directions, hit = active[through], along[through], hit[through]
        origins = origins[hit] + directions * (hits["tfar"][hit, None] + np.float32(_STEP))


def _window(box: tuple[NDArray, NDArray], camera: Camera) -> tuple[slice, slice]:
    """The rows and columns of pixels that the bounding box covers."""
    corners = np.stack(np.meshgrid(*zip(*box, strict=True)), axis=-1).reshape(-1, 3)
    pixels, depth = camera.project(corners)
    if (depth <= 0).any():
        return slice(0, camera.height_px), slice(0, camera.width_px)
    size = (camera.width_px, camera.height_px)
    first = np.clip(np.floor(pixels.min(axis=0)).astype(int) - 1, 0, size)
    last = np.clip(np.ceil(pixels.max(axis=0)).astype(int) + 1, 0, size)
    return slice(first[1], last[1]), slice(first[0], last[0])


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

"""What else than colour is known about every pixel, depth, normals, the surface's own colour; and about space."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray
from PIL import Image

from mv3d.cameras import Camera
from mv3d.depth import DEPTH_FOLDER, depth_levels
from mv3d.occupancy import OCCUPANCY_FILE, occupancy_file
from mv3d.pixels import to_uint8
from render.scene import raycast
from render.scene.occupancy import carve_occupancy
from render.scene.scene import RenderScene


def trace_geometry(scene: RenderScene, camera: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth (H, W) along the viewing axis and unit normals (H, W, 3) in camera axes at the pixels' centres.

    Of the first surface, see-through or not, its side that is seen; 0 where there is none.
    """
    embree = EmbreeScene()
    TriangleMesh(embree, np.ascontiguousarray(scene.corners))
    columns, rows = camera.sample_rays()
    rays = (rows[:, None] + columns[None, :]).reshape(-1, 3).astype(np.float32)
    origins = np.tile(camera.position.astype(np.float32), (len(rays), 1))
    hits = embree.run(origins, rays, query="INTERSECT", output=1)
    hit = np.flatnonzero(hits["primID"] >= 0)
    u, v = hits["u"][hit, None], hits["v"][hit, None]
    corners = scene.normals[hits["primID"][hit]]
    normals = corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-20)
    facing = hits["Ng"][hit]
    facing = facing * -np.sign((facing * rays[hit]).sum(axis=-1, keepdims=True))
    normals = np.where((normals * facing).sum(axis=-1, keepdims=True) < 0, -normals, normals)
    depth, normal = np.zeros(len(rays), np.float32), np.zeros((len(rays), 3), np.float32)
    depth[hit] = hits["tfar"][hit]  # rays are 1 long along the viewing axis
    normal[hit] = normals @ camera.world_from_cam[:3, :3].astype(np.float32)
    shape = (camera.height_px, camera.width_px)
    return depth.reshape(shape), normal.reshape(*shape, 3)


def draw_passes(scene: RenderScene, cameras: Sequence[Camera], names: Sequence[str], samples: int) -> dict[str, bytes]:
    """Pictures of the named passes as files of an orbit folder.

    ``depth/000.png``: as `mv3d.depth` reads it. ``normal/000.png``: camera axes, -1 to 1 on 0 to
    255, alpha 0 for nothing. ``albedo/000.png``: like frames, without light. ``occupancy.npz``: as `mv3d.occupancy`
    reads it.
    """
    files = {}
    if "depth" in names or "normal" in names:
        for k, camera in enumerate(cameras):
            depth, normal = trace_geometry(scene, camera)
            if "depth" in names:
                files[f"{DEPTH_FOLDER}/{k:03d}.png"] = _png(depth_levels(depth))
            if "normal" in names:
                rgba = np.concatenate([normal / 2 + 0.5, depth[..., None] > 0], axis=-1)
                files[f"normal/{k:03d}.png"] = _png(to_uint8(rgba * (depth > 0)[..., None]))
    if "albedo" in names:
        for k, frame in enumerate(raycast.render_orbit(scene, cameras, None, samples)):
            files[f"albedo/{k:03d}.png"] = _png(to_uint8(frame))
    if "occupancy" in names:
        files[OCCUPANCY_FILE] = occupancy_file(carve_occupancy(scene))
    return files


def _png(pixels: NDArray) -> bytes:
    with BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

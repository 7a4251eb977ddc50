"""A .blend ready to press render: mesh, packed texture, the orbit as one animated camera, light."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from math import radians, sin
from pathlib import Path

import numpy as np

from mv3d.blender import run_in_blender
from mv3d.cameras import DEFAULT_FOV_DEG, Camera, static_orbit
from mv3d.conventions import to_blender
from mv3d.export.meshes import save_mesh
from mv3d.files import whole_file
from mv3d.mesh import Mesh

_SCRIPT = Path(__file__).parents[1] / "blender_scene.py"
_SECONDS_PER_TURN = 3.0  # as orbit.mp4
_NUM_VIEWS, _SIZE_PX = 24, 1024  # of a mesh that comes without cameras


def save_blend(mesh: Mesh, cameras: Sequence[Camera], path: Path) -> None:
    """Write a scene whose frame k + 1 is the view of camera k, so that a render of the animation is the orbit again.

    Blender's world is ours. Its version opens the file, and later ones do. Replaces ``path``.

    Raises:
        Mv3dError: if there is no Blender, or it fails.
    """
    with tempfile.TemporaryDirectory(prefix="mv3d-blend-") as folder, whole_file(path) as partial:
        mesh_path = Path(folder) / f"{path.stem}.glb"
        save_mesh(mesh, mesh_path)
        job = {
            "mesh": str(mesh_path),
            "cameras": [to_blender(camera) for camera in cameras],
            "frames_per_second": max(1, round(len(cameras) / _SECONDS_PER_TURN)),
            "out": str(partial),
        }
        run_in_blender(_SCRIPT, job, Path(folder))


def turntable_of(mesh: Mesh) -> tuple[Camera, ...]:
    """Cameras for a mesh that comes without: around the origin, far enough away to see all of it from everywhere."""
    reach = float(np.linalg.norm(mesh.vertices, axis=1).max())
    return static_orbit(_NUM_VIEWS, 15, 1.05 * reach / sin(radians(DEFAULT_FOV_DEG) / 2), size_px=_SIZE_PX)

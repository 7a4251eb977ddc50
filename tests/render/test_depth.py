from __future__ import annotations

from pathlib import Path

import numpy as np

from mv3d.depth import load_depth
from mv3d.orbit import load_orbit
from render.__main__ import main


def test_depth_maps_of_a_rendered_cuboid_lie_on_it(meshes: Path, tmp_path: Path, cube_obj) -> None:
    """Every pixel's depth, brought back into the world through the orbit's own camera, is on the cuboid's surface."""
    (meshes / "cube.obj").write_text(cube_obj((1, 2, 0.5)))
    out = tmp_path / "out"
    assert main(["orbits", str(meshes), "--out", str(out), "--num-views", "3", "--size", "32", "--workers", "1"]) == 0
    assert main(["depth", str(meshes), "--out", str(out), "--workers", "1"]) == 0
    orbit, depth = load_orbit(out / "cube" / "0"), load_depth(out / "cube" / "0")
    assert depth is not None
    yaw = np.radians(float(orbit.facts.extra["object_yaw_deg"]))
    object_from_world = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    half = np.array([0.25, 0.125, 0.5])  # Y up, 1 x 2 x 0.5, of largest extent 1
    for frame, view, camera in zip(orbit.frames, depth, orbit.cameras, strict=True):
        assert (view[frame[..., 3] == 1] > 0).all()
        assert not view[frame[..., 3] == 0].any()
        rows, columns = np.nonzero(view)
        directions = camera.directions(np.stack([columns + 0.5, rows + 0.5], axis=-1))
        along_axis = -(directions @ camera.world_from_cam[:3, 2])
        points = camera.position + directions * (view[rows, columns] / along_axis)[:, None]
        outside = np.abs(points @ object_from_world.T) - half
        assert np.abs(outside.max(axis=-1)).max() < 2e-4


def test_depth_is_made_once(meshes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["orbits", str(meshes), "--out", str(out), "--num-views", "2", "--size", "16", "--workers", "1"])
    main(["depth", str(meshes), "--out", str(out), "--workers", "1"])
    first = (out / "cube" / "0" / "depth" / "000.png").stat().st_mtime_ns
    assert main(["depth", str(meshes), "--out", str(out), "--workers", "1"]) == 0
    assert (out / "cube" / "0" / "depth" / "000.png").stat().st_mtime_ns == first

"""The space that objects fill, carved from all directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from mv3d.errors import Mv3dError
from mv3d.occupancy import OCCUPANCY_FILE, OCCUPANCY_SIZE, load_occupancy, occupancy_file
from render.scene.occupancy import carve_occupancy
from render.scene.scene import RenderScene, make_scene

CELL = 2 / OCCUPANCY_SIZE


def _scene(mesh: trimesh.Trimesh) -> RenderScene:
    mesh.visual.face_colors = [200, 100, 50, 255]
    return make_scene(trimesh.Scene([mesh]), linear_colours=False)


def _centres(filled: np.ndarray) -> np.ndarray:
    """Centres (N, 3) of the filled cells, X Y Z, in radii of the object's sphere."""
    return (np.argwhere(filled)[:, ::-1] + 0.5) * CELL - 1


def test_a_ball_fills_a_ball():
    centres = _centres(carve_occupancy(_scene(trimesh.creation.icosphere(subdivisions=4))))
    assert len(centres) * CELL**3 == pytest.approx(4 / 3 * np.pi, rel=0.03)
    assert np.linalg.norm(centres, axis=1).max() < 1


def test_a_bowl_is_hollow_and_a_table_has_nothing_beneath():
    """A ring of level views would fill both."""
    bowl = trimesh.creation.icosphere(subdivisions=4)
    bowl = trimesh.Trimesh(bowl.vertices, bowl.faces[bowl.triangles_center[:, 2] < 0])  # open, without thickness
    filled = carve_occupancy(_scene(bowl))
    size = OCCUPANCY_SIZE
    column = filled[:, size // 2, size // 2]
    assert 1 <= column.sum() <= 6  # the bottom alone, which is one sheet
    top = trimesh.creation.box((1, 1, 0.05), transform=trimesh.transformations.translation_matrix([0, 0, 0.5]))
    legs = [
        trimesh.creation.box((0.02, 0.02, 1), transform=trimesh.transformations.translation_matrix([x, y, 0]))
        for x in (-0.45, 0.45)
        for y in (-0.45, 0.45)
    ]
    filled = carve_occupancy(_scene(trimesh.util.concatenate([top, *legs])))
    assert filled[:, size // 2, size // 2].sum() * CELL < 0.12
    low = _centres(filled)
    low = low[low[:, 2] < -0.3]
    assert {tuple(np.sign(p)) for p in low[:, :2]} == {(-1, -1), (-1, 1), (1, -1), (1, 1)}  # all four thin legs


def test_the_grid_stands_as_the_object_does():
    box = trimesh.creation.box((1, 0.4, 0.2))
    centres = _centres(carve_occupancy(_scene(box)))
    extent = np.ptp(centres, axis=0) + CELL
    assert extent / extent[0] == pytest.approx([1, 0.4, 0.2], abs=0.04)
    turned = _centres(carve_occupancy(_scene(box).turned(90)))
    assert np.argsort(np.ptp(turned, axis=0)).tolist() == [2, 0, 1]


def test_a_file_keeps_the_grid_and_a_damaged_one_is_told(tmp_path: Path):
    filled = np.random.default_rng(0).random((OCCUPANCY_SIZE,) * 3) < 0.1
    assert load_occupancy(tmp_path) is None
    (tmp_path / OCCUPANCY_FILE).write_bytes(occupancy_file(filled))
    np.testing.assert_array_equal(load_occupancy(tmp_path), filled)
    (tmp_path / OCCUPANCY_FILE).write_bytes(occupancy_file(filled)[:500])
    with pytest.raises(Mv3dError, match="no occupancy grid"):
        load_occupancy(tmp_path)

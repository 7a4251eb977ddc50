import numpy as np
import pytest
import trimesh

from eval.metrics.geometry import (
    SurfacePoints,
    chamfer,
    empty_geometry,
    f_score,
    find_alignment,
    sample_visible,
    score_geometry,
    volume_iou,
)
from mv3d.mesh import Mesh


def _mesh(body: trimesh.Trimesh) -> Mesh:
    return Mesh(np.asarray(body.vertices, dtype=np.float64), np.asarray(body.faces, dtype=np.int64))


def _box(extents=(1.0, 0.6, 0.4), shift=(0.0, 0.0, 0.0)) -> Mesh:
    return _mesh(trimesh.creation.box(extents=extents).apply_translation(shift))


def test_a_body_against_itself():
    scores = score_geometry(_box(), _box())
    assert scores["volume_iou"] == 1
    assert scores["f_score_10"] == scores["f_score_20"] == scores["f_score_50"] == 1
    assert scores["chamfer"] == 0  # the same points are drawn
    assert scores["normal_consistency"] == pytest.approx(1)


def test_concentric_spheres_have_the_distance_of_their_radii():
    inner, outer = (_mesh(trimesh.creation.icosphere(subdivisions=4, radius=r)) for r in (0.4, 0.5))
    scores = score_geometry(inner, outer)
    assert scores["chamfer"] == pytest.approx(0.1, abs=0.002)
    assert scores["volume_iou"] == pytest.approx((0.4 / 0.5) ** 3, abs=0.02)
    assert scores["normal_consistency"] > 0.99
    assert scores["f_score_10"] == 0  # 0.1 is 0.2 where the largest extent is 2
    assert scores["f_score_50"] == 1


def test_volume_iou_of_boxes_is_that_of_their_volumes():
    # Half a body's length moved: a third is shared. On whole cells, so that the grid is exact but for the touched rim.
    moved = volume_iou(_box((0.5, 0.5, 0.5)), _box((0.5, 0.5, 0.5), (0.25, 0, 0)))
    assert moved == pytest.approx(1 / 3, abs=0.03)
    rng = np.random.default_rng(0)
    for _ in range(3):
        a, b = rng.uniform(0.3, 0.8, 3), rng.uniform(0.3, 0.8, 3)
        shared, both = np.minimum(a, b).prod(), a.prod() + b.prod()
        assert volume_iou(_box(a), _box(b)) == pytest.approx(shared / (both - shared), abs=0.05)


@pytest.mark.slow
def test_volume_iou_is_that_of_trimeshs_filled_voxels():
    torus = trimesh.creation.torus(0.35, 0.12)
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.4)
    filled = []
    for body in (torus, ball):
        grid = body.voxelized(1 / 64).fill()
        filled.append({tuple(np.round(p * 64).astype(int)) for p in grid.points})
    expected = len(filled[0] & filled[1]) / len(filled[0] | filled[1])
    assert volume_iou(_mesh(torus), _mesh(ball)) == pytest.approx(expected, abs=0.03)


def test_holes_in_a_surface_smaller_than_a_cell_do_not_let_the_outside_in():
    box = trimesh.creation.box(extents=(0.6, 0.6, 0.6))
    torn = Mesh(np.asarray(box.vertices)[box.faces].reshape(-1, 3), np.arange(36).reshape(12, 3))  # no shared corners
    assert volume_iou(torn, _mesh(box)) == 1


def test_chamfer_and_f_score_by_hand():
    a = np.array([[0.0, 0, 0], [1, 0, 0]])
    b = np.array([[0.0, 0, 0.1], [1, 0, 0], [1, 0, 0.4]])
    assert chamfer(a, b) == pytest.approx(((0.1 + 0) / 2 + (0.1 + 0 + 0.4) / 3) / 2)
    there, back = np.array([0.1, 0]), np.array([0.1, 0, 0.4])
    precision, recall = 1.0, 2 / 3
    assert f_score(there, back, 0.2) == pytest.approx(2 * precision * recall / (precision + recall))
    assert f_score(there, back, 1e-9) == pytest.approx(2 * 0.5 * (1 / 3) / (0.5 + 1 / 3))


def test_what_stands_inside_is_not_sampled():
    inside = trimesh.creation.icosphere(subdivisions=2, radius=0.1)
    both = trimesh.util.concatenate([trimesh.creation.box(extents=(1, 1, 1)), inside])
    points = sample_visible(_mesh(both), 2000).points
    assert np.abs(points).max(axis=1).min() > 0.49


def test_points_are_even_over_the_surface_and_lie_on_it():
    sampled = sample_visible(_box(), 10_000)
    on_top = np.isclose(sampled.points[:, 2], 0.2)
    assert on_top.mean() == pytest.approx(0.6 / (2 * (0.6 + 0.4 + 0.24)), abs=0.02)
    np.testing.assert_allclose(np.abs(sampled.normals[on_top]), [[0, 0, 1]] * on_top.sum(), atol=1e-9)


@pytest.mark.parametrize("mode", ["none", "yaw", "icp"])
def test_alignments_undo_what_they_say(mode):
    # A lopsided body turned by 75 degrees; for ICP also moved and shrunk.
    true = _mesh(trimesh.util.concatenate([trimesh.creation.box(extents=(1, 0.3, 0.2)), _moved_box()]))
    turn = trimesh.transformations.rotation_matrix(np.radians(75), [0, 0, 1])
    if mode == "icp":
        turn[:3, :3] *= 0.9
        turn[:3, 3] = [0.05, -0.04, 0.03]
    pred = Mesh(true.vertices @ turn[:3, :3].T + turn[:3, 3], true.faces)
    scores = score_geometry(pred, true, mode)
    if mode == "none":
        assert scores["volume_iou"] < 0.6
    else:
        assert scores["chamfer"] < 0.012
        assert scores["volume_iou"] > 0.85


def _moved_box() -> trimesh.Trimesh:
    return trimesh.creation.box(extents=(0.2, 0.5, 0.3)).apply_translation([0.35, 0.3, 0.1])


def test_none_is_the_identity():
    points = SurfacePoints(np.eye(3), np.eye(3))
    np.testing.assert_array_equal(find_alignment(points, points, "none"), np.eye(4))


def test_a_body_that_could_not_be_lifted_has_the_worst_scores():
    scores = empty_geometry(_box())
    assert scores.keys() == score_geometry(_box(), _box()).keys()
    assert scores["volume_iou"] == scores["f_score_50"] == 0
    assert scores["chamfer"] > 0.15

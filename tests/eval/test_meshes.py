"""python -m eval geometry, as its users run it."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from eval.__main__ import main
from eval.meshes.given import score_meshes
from mv3d.export import save_mesh
from mv3d.mesh import Mesh


def _save(body: trimesh.Trimesh, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_mesh(Mesh(np.asarray(body.vertices, dtype=np.float64), np.asarray(body.faces, dtype=np.int64)), path)
    return path


def _ball(radius: float, subdivisions: int = 4) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)


def _lopsided() -> trimesh.Trimesh:
    arm = trimesh.creation.box(extents=(0.2, 0.5, 0.3)).apply_translation([0.35, 0.3, 0.1])
    body = trimesh.util.concatenate([trimesh.creation.box(extents=(1, 0.3, 0.2)), arm])
    return body.apply_translation(-body.bounds.mean(axis=0))  # turns are about the middle of its box


def test_balls_have_the_scores_of_closed_form_in_any_unit_and_place(tmp_path, capsys):
    """Concentric balls of radii r < R, the true one 2R across: distance (R - r) / 2R both ways, volumes (r / R)^3."""
    for place in ([0, 0, 0], [30, -20, 10]):
        pred = _save(_ball(9.6).apply_translation(place), tmp_path / "pred.ply")
        true = _save(_ball(12.0).apply_translation(place), tmp_path / "true.glb")
        ((scores),) = score_meshes(pred, true, "none").scores.values()
        assert scores["chamfer"] == pytest.approx(0.1, abs=0.002)
        assert scores["volume_iou"] == pytest.approx(0.8**3, abs=0.02)
        assert scores["normal_consistency"] == pytest.approx(1, abs=0.01)
        # A distance of 0.1 counts as 0.2 of a body whose largest extent is 2: not within .1, hardly within .2.
        assert (scores["f_score_10"], scores["f_score_50"]) == (0, 1)
    assert main(["geometry", str(pred), str(true)]) == 0
    printed = capsys.readouterr().out
    assert "alignment none" in printed
    assert f"{scores['chamfer']:.4f}" in printed
    for heading in ("Chamfer ↓", "volume IoU ↑", "F @ .1 ↑", "F @ .2 ↑", "F @ .5 ↑", "normal consistency ↑"):
        assert heading in printed


def _to_torus(points: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(np.hypot(points[:, 0], points[:, 1]) - 0.35, points[:, 2]) - 0.12)


def _to_cylinder(points: np.ndarray) -> np.ndarray:
    beyond = np.stack([np.hypot(points[:, 0], points[:, 1]) - 0.4, np.abs(points[:, 2]) - 0.2])
    return np.abs(np.hypot(*beyond.clip(min=0)) + beyond.max(axis=0).clip(max=0))


def test_scores_of_points_are_those_of_distances_in_closed_form(tmp_path):
    """Trimesh's own samples and exact distances to the other body, where ours are from points to points."""
    pred = trimesh.creation.torus(0.35, 0.12, major_sections=96, minor_sections=48)
    true = trimesh.creation.cylinder(radius=0.4, height=0.4, sections=96)
    files = _save(pred, tmp_path / "a.stl"), _save(true, tmp_path / "b.stl")
    (scores,) = score_meshes(*files, "none").scores.values()
    side = 0.8
    there, back = (
        distance(trimesh.sample.sample_surface(body, 20_000, seed=5)[0]) / side
        for body, distance in ((pred, _to_cylinder), (true, _to_torus))
    )
    assert scores["chamfer"] == pytest.approx((there.mean() + back.mean()) / 2, abs=0.003)
    for key, threshold in (("f_score_10", 0.1), ("f_score_20", 0.2), ("f_score_50", 0.5)):
        precision, recall = ((2 * distances < threshold).mean() for distances in (there, back))
        assert scores[key] == pytest.approx(2 * precision * recall / (precision + recall), abs=0.02)
    cosines = []
    for body, other in ((pred, true), (true, pred)):
        points, faces = trimesh.sample.sample_surface(body, 3000, seed=6)[:2]
        dense, its_faces = trimesh.sample.sample_surface(other, 50_000, seed=7)[:2]
        nearest = its_faces[cKDTree(dense).query(points)[1]]
        cosines.append(np.abs((body.face_normals[faces] * other.face_normals[nearest]).sum(axis=1)).mean())
    assert scores["normal_consistency"] == pytest.approx(np.mean(cosines), abs=0.03)


@pytest.mark.parametrize("align", ["none", "yaw", "icp"])
def test_folders_are_matched_by_name_and_aligned_as_asked(tmp_path, capsys, align):
    turn = trimesh.transformations.rotation_matrix(np.radians(75), [0, 0, 1])
    for name in ("one", "sub/two"):
        _save(_lopsided(), tmp_path / "truth" / f"{name}.glb")
    _save(_lopsided().apply_transform(turn), tmp_path / "pred/one.obj")
    _save(_lopsided().apply_transform(turn).apply_scale(0.9), tmp_path / "pred/sub/two.ply")
    _save(_ball(0.5, 1), tmp_path / "pred/three.ply")
    (tmp_path / "truth/broken.ply").write_text("no mesh")
    (tmp_path / "pred/broken.ply").write_text("no mesh")
    words = ["geometry", str(tmp_path / "pred"), str(tmp_path / "truth"), "--align", align]
    assert main([*words, "--out", str(tmp_path / "table.md")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == printed
    assert f"alignment {align}" in printed
    assert "left out: three: there is no true mesh" in printed
    assert "left out: broken: " in printed
    assert "mean of 2" in printed
    cells = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines()]
    chamfers = {row[1]: float(row[2]) for row in cells if len(row) > 2 and row[1] in ("one", "sub/two")}
    aligned = {"none": set(), "yaw": {"one"}, "icp": {"one", "sub/two"}}[align]
    assert {name for name, chamfer in chamfers.items() if chamfer < 0.012} == aligned, chamfers


@pytest.mark.parametrize(
    ("pred", "truth", "extra", "message"),
    [
        ("nowhere.ply", "good.ply", [], "nowhere.ply does not exist; give a mesh file or a folder of them"),
        ("good.ply", "empty", [], "empty holds no mesh (.glb, .obj, .ply, .stl)"),
        ("note.txt", "good.ply", [], "note.txt names no mesh format that is read"),
        ("broken.ply", "good.ply", [], "broken.ply is no readable mesh"),
        ("points.ply", "good.ply", [], "points.ply holds no faces"),
        ("good.ply", "line.ply", [], "line.ply has no surface; all of its triangles are lines or points"),
        ("nan.ply", "good.ply", [], "nan.ply has corners that are no numbers"),
        ("twins", "good.ply", [], "are of one name; keep one of them"),
        ("good.ply", "other", [], "there is no predicted mesh"),
        ("good.ply", "good.ply", ["--align", "spin"], "invalid choice"),
    ],
)
def test_bad_input_is_one_line_code_2_and_nothing_written(tmp_path, capsys, pred, truth, extra, message):
    _save(_ball(0.5, 1), tmp_path / "good.ply")
    for name in ("twins/a.ply", "twins/a.stl", "other/else.ply"):
        _save(_ball(0.5, 1), tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").touch()
    (tmp_path / "broken.ply").write_text("ply\nformat ascii 1.0\nelement")
    head = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    faces = "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "points.ply").write_text(head + "end_header\n0 0 0\n1 0 0\n0 1 0\n")
    (tmp_path / "line.ply").write_text(head + faces + "0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n")
    (tmp_path / "nan.ply").write_text(head + faces + "0 0 nan\n1 0 0\n0 1 0\n3 0 1 2\n")
    words = ["geometry", str(tmp_path / pred), str(tmp_path / truth), *extra, "--out", str(tmp_path / "out.md")]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("eval: ")
    assert message in line
    assert not (tmp_path / "out.md").exists()

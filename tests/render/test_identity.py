"""What an object is counted as must not hang on how its faces are cut."""

from __future__ import annotations

from pathlib import Path

import pytest

import render.sources.obj
from render.farm.split import hash_geometry, identify
from render.scene.scene import make_scene
from render.sources import find_objects

# An L-shaped prism: its two large faces are concave, and trimesh's fans cover their notches.
_L_SHAPE = [(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)]


@pytest.fixture
def prism(tmp_path: Path) -> Path:
    lines = ["mtllib l.mtl", "usemtl red"]
    lines += [f"v {x} {y} {z}" for z in (0, 1) for x, y in _L_SHAPE[1:] + _L_SHAPE[:1]]
    lines += ["f 6 5 4 3 2 1", "f 7 8 9 10 11 12"]
    lines += [f"f {k + 1} {(k + 1) % 6 + 1} {(k + 1) % 6 + 7} {k + 7}" for k in range(6)]
    (tmp_path / "l.obj").write_text("\n".join(lines) + "\n")
    (tmp_path / "l.mtl").write_text("newmtl red\nKd 0.8 0.1 0.1\n")
    return tmp_path / "l.obj"


def test_identity_survives_another_way_of_cutting_faces(prism: Path, monkeypatch: pytest.MonkeyPatch):
    (item,) = find_objects(prism)
    scene = make_scene(item.load(), linear_colours=False)
    identity = identify(item, scene)
    monkeypatch.setattr(render.sources.obj, "cut_concave_faces", lambda text: text)
    uncut = make_scene(item.load(), linear_colours=False)
    assert hash_geometry(uncut) != hash_geometry(scene)  # the cut matters for this shape
    assert identify(item, uncut) == identity

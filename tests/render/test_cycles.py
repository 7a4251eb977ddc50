"""Blender behind the ray caster's interface, where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from mv3d.blender import find_blender
from mv3d.cameras import static_orbit
from mv3d.orbit import load_orbit
from render import cycles, raycast
from render.__main__ import main
from render.scene import make_scene
from render.sources import SourceObject, find_objects
from tests.render.conftest import make_cube_mtl, make_cube_obj
from tests.render.game_files import g3d, grid, picture

pytestmark = [
    pytest.mark.blender,
    pytest.mark.slow,
    pytest.mark.skipif(find_blender() is None, reason="no Blender: run `python -m mv3d.blender install`"),
]


def _lying_furniture(folder: Path, library: Path) -> SourceObject:
    return find_objects(library)[1]


def _painted_ply(folder: Path, library: Path) -> SourceObject:
    box = trimesh.creation.box((1, 2, 3))
    box.visual.vertex_colors = np.random.default_rng(0).integers(0, 256, (8, 4)) | [0, 0, 0, 255]
    box.export(folder / "box.ply")
    return find_objects(folder / "box.ply")[0]


def _grey_obj(folder: Path, library: Path) -> SourceObject:
    (folder / "cube.obj").write_text(make_cube_obj((1, 2, 1)))
    (folder / "cube.mtl").write_text(make_cube_mtl().replace("1 0 0", "0.5 0.2 0.7"))
    return find_objects(folder / "cube.obj")[0]


def _cut_out_model(folder: Path, library: Path) -> SourceObject:
    vertices, uv, faces = grid(8)
    (folder / "leaf.g3d").write_bytes(g3d((vertices[None], uv, faces, "leaf.png", 0)))
    (folder / "leaf.png").write_bytes(picture((200, 60, 0, 255), (0, 60, 200, 0), "PNG"))
    return find_objects(folder / "leaf.g3d")[0]


@pytest.mark.parametrize("make", [_lying_furniture, _painted_ply, _grey_obj, _cut_out_model])
def test_both_renderers_show_the_same(make, tmp_path: Path, library: Path) -> None:
    item = make(tmp_path, library)
    scene = make_scene(item.load(), linear_colours=item.linear_colours).turned(25)
    cameras = static_orbit(2, 20, 2.6, size_px=64)
    ours = raycast.render_orbit(scene, cameras, None, samples_per_side=5)
    theirs = cycles.render_orbit(item, scene, cameras, None, samples=25, threads=1)
    covered = ours[..., 3] > 0.5, theirs[..., 3] > 0.5
    assert (covered[0] & covered[1]).sum() / (covered[0] | covered[1]).sum() > 0.98
    inside = (ours[..., 3] > 0.99) & (theirs[..., 3] > 0.99)
    assert inside.sum() > 300
    assert np.square(ours[inside] - theirs[inside]).mean() < 1e-3  # 30 dB


def test_the_command_line_renders_with_cycles(meshes: Path, tmp_path: Path) -> None:
    (meshes / "broken.glb").write_bytes(b"glTF, or so it says")
    small = ("--num-views", "2", "--size", "32", "--workers", "1", "--renderer", "cycles", "--samples", "4")
    assert main(["orbits", str(meshes), "--out", str(tmp_path / "out"), *small, "--yaw", "0"]) == 0
    lines = {
        line["object_id"]: line for line in map(json.loads, (tmp_path / "out/manifest.jsonl").read_text().splitlines())
    }
    assert lines["broken"]["failed"]
    orbit = load_orbit(tmp_path / "out" / "cube" / "0")
    assert orbit.facts.made_by is not None
    assert "cycles" in orbit.facts.made_by
    red, green, blue, alpha = orbit.frames[0, 16, 16]
    assert alpha == 1
    assert red > 0.3 > 0.1 > max(green, blue)
    assert orbit.frames[0, 0, 0, 3] == 0

"""Prints: read again as slicers read them, one closed body of the size asked for, standing where that is asked."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import trimesh

from mv3d.cli import main
from mv3d.export import load_mesh, save_mesh
from mv3d.mesh import Mesh
from tests.mv3d.blocks import Box, make_block

CORE = "{http://schemas.microsoft.com/3dmanufacturing/core/2015/02}"
PLANK = Box((0, 0, 0), (2, 1, 0.1))


def save_boxes(path: Path, *boxes: Box) -> None:
    blocks = [make_block(box) for box in boxes]
    first = np.cumsum([0, *(len(block.vertices) for block in blocks)])
    faces = [block.faces + start for block, start in zip(blocks, first, strict=False)]
    save_mesh(Mesh(np.concatenate([block.vertices for block in blocks]), np.concatenate(faces)), path)


def export(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["export", *arguments, "--json", "--overwrite"]) == 0
    return json.loads(capsys.readouterr().out)["print"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", [".stl", ".3mf"])
def test_a_print_has_its_size_in_millimetres_and_is_measured(suffix: str, capsys):
    save_boxes(Path("plank.glb"), PLANK)
    facts = export(capsys, "plank.glb", "-o", f"plank{suffix}", "--size-mm", "80")
    loaded = trimesh.load_scene(f"plank{suffix}")
    np.testing.assert_allclose(loaded.bounds, [[0, 0, 0], [80, 40, 4]], atol=1e-4)
    assert loaded.to_mesh().is_watertight
    if suffix == ".3mf":
        assert loaded.units == "millimeter"
        with zipfile.ZipFile("plank.3mf") as package:
            assert ElementTree.fromstring(package.read("3D/3dmodel.model")).get("unit") == "millimeter"
    assert facts["size_mm"] == pytest.approx([80, 40, 4], abs=1e-3)
    assert (facts["watertight"], facts["bodies"], facts["left_out_bodies"], facts["base_cut_mm"]) == (True, 1, 0, 0)
    assert facts["wall_mm"] == pytest.approx(4, rel=1e-3)
    assert facts["wall_percentile"] == 1
    assert main(["export", "plank.glb", "-o", "again.stl", "--size-mm", "80"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "1 closed body, 80.0 x 40.0 x 4.0 mm, walls from 4.00 mm (1 % of the surface is over thinner ones)"
    )


def test_thin_parts_are_found_and_hollows_are_kept(capsys):
    save_boxes(Path("a.glb"), Box((0, 0, 0), (1, 1, 1)), Box((0.4, 0.4, 0.9), (0.45, 0.6, 1.4)))  # a tongue on a cube
    assert export(capsys, "a.glb", "-o", "a.stl", "--size-mm", "140")["wall_mm"] == pytest.approx(5, rel=0.01)
    outer, inner = make_block(Box((0, 0, 0), (1, 1, 1))), make_block(Box((0.2, 0.2, 0.2), (0.8, 0.8, 0.8)))
    hollow = Mesh(
        np.concatenate([outer.vertices, inner.vertices]), np.concatenate([outer.faces, inner.faces[:, ::-1] + 8])
    )
    save_mesh(hollow, Path("hollow.glb"))
    facts = export(capsys, "hollow.glb", "-o", "hollow.stl", "--size-mm", "10")
    assert (facts["bodies"], facts["wall_mm"]) == (1, pytest.approx(2, rel=0.01))
    assert trimesh.load_mesh("hollow.stl").volume == pytest.approx(1000 - 6**3, rel=1e-3)


def test_bodies_that_overlap_become_one_and_loose_ones_are_left_out(capsys):
    save_boxes(
        Path("a.glb"), Box((0, 0, 0), (1, 1, 1)), Box((0.5, 0.5, 0.5), (2, 1.5, 1.5)), Box((4, 0, 0), (4.5, 0.5, 0.5))
    )
    facts = export(capsys, "a.glb", "-o", "a.stl", "--size-mm", "20")
    whole = 1 + 1.5 - 0.125
    assert (facts["bodies"], facts["left_out_bodies"]) == (1, 1)
    assert facts["left_out_percent"] == pytest.approx(100 * 0.125 / (whole + 0.125), abs=0.01)
    again = trimesh.load_mesh("a.stl")
    assert again.is_watertight
    assert again.body_count == 1
    assert again.volume == pytest.approx(whole * 1000, rel=1e-4)


def test_a_mesh_that_is_inside_out_is_turned(capsys):
    block = make_block()
    save_mesh(Mesh(block.vertices, block.faces[:, ::-1]), Path("a.ply"))
    export(capsys, "a.ply", "-o", "a.stl", "--size-mm", "70")
    assert trimesh.load_mesh("a.stl").volume == pytest.approx(70 * 40 * 60, rel=1e-3)


def test_a_flat_base_is_as_small_as_lets_it_stand(capsys):
    ball = trimesh.creation.icosphere(4)
    save_mesh(Mesh(np.asarray(ball.vertices), np.asarray(ball.faces)), Path("ball.glb"))
    facts = export(capsys, "ball.glb", "-o", "ball.3mf", "--size-mm", "100", "--flat-base")
    again = trimesh.load_scene("ball.3mf").to_mesh()
    assert again.is_watertight
    assert facts["base_cut_mm"] == pytest.approx(1, rel=0.02)  # of a ball 100 mm high
    assert facts["size_mm"] == pytest.approx([100, 100, 99], rel=0.01)
    below = again.triangles[:, :, 2].max(axis=1) < 1e-4
    assert again.area_faces[below].sum() == pytest.approx(np.pi * (50**2 - 49**2), rel=0.08)
    # One leg is shorter than the other three: the cut reaches all four.
    legs = [Box((x, y, 0.045 if x + y == 0 else 0), (x + 0.1, y + 0.1, 0.6)) for x in (0, 0.9) for y in (0, 0.9)]
    top = Box((0, 0, 0.5), (1, 1, 0.6))
    heavy = Box((0, 0, 0.55), (0.3, 0.3, 1))  # over the short leg
    save_boxes(Path("table.glb"), top, *legs, heavy)
    facts = export(capsys, "table.glb", "-o", "table.stl", "--size-mm", "100", "--flat-base")
    assert facts["base_cut_mm"] == pytest.approx(5, abs=0.01)


def test_what_cannot_be_printed_is_one_line(here: Path, capsys):
    block = make_block()
    save_mesh(block, here / "block.glb")
    save_mesh(replace(block, faces=block.faces[1:], texture=None), here / "open.glb")
    save_boxes(here / "lamp.glb", Box((0, 0, 0), (0.1, 0.1, 1)), Box((0, 0, 0.9), (3, 1, 1)))
    before = sorted(here.iterdir())
    for arguments, problem in [
        (
            ["open.glb", "-o", "a.stl", "--size-mm", "50"],
            "open.glb: the mesh is not closed: 3 of its edges have not two",
        ),
        (["lamp.glb", "-o", "a.3mf", "--size-mm", "50", "--flat-base"], "lamp.glb: it would fall over"),
        (["block.glb", "-o", "a.3mf"], "a.3mf is in millimetres; say how large the print is (--size-mm)"),
        (["block.glb", "-o", "a.stl", "--flat-base"], "a flat base is for a print; say how large that is (--size-mm)"),
        (
            ["block.glb", "-o", "a.obj", "--size-mm", "5"],
            "a.obj is not for printing; end it in .stl or .3mf (--size-mm)",
        ),
        (["block.glb", "-o", "a.stl", "--size-mm", "0.5"], "size_mm 0.5 is outside 1 to 5000 (--size-mm)"),
        (["block.glb", "-o", "a.stl", "--size-mm", "nan"], "size_mm nan is outside"),
    ]:
        assert main(["export", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"mv3d: {problem}")
        assert sorted(here.iterdir()) == before


def test_an_stl_without_a_size_keeps_the_world_s_unit(capsys):
    save_boxes(Path("plank.glb"), PLANK)
    assert main(["export", "plank.glb", "-o", "plank.stl"]) == 0
    np.testing.assert_allclose(load_mesh(Path("plank.stl")).extent, [PLANK.low, PLANK.high], atol=1e-6)

"""The .blend, opened and rendered by Blender with the cameras that are in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from mv3d.blender import run_in_blender
from mv3d.cameras import Camera, sine_orbit
from mv3d.cli import main
from mv3d.errors import Mv3dError
from mv3d.export import export_source, save_mesh
from mv3d.export.blend import save_blend
from mv3d.mesh import Mesh, Texture
from mv3d.orbit import save_orbit
from mv3d.pixels import from_uint8
from tests.mv3d.blocks import CRATE, make_block, silhouette_iou, view_boxes

OPENER = Path(__file__).with_name("open_blend.py")


def open_blend(path: Path, out: Path, *, flat: bool = True, percent: int = 100) -> tuple[dict, np.ndarray]:
    """What is in the file, and its rendered animation (N, H, W, 4)."""
    out.mkdir()
    run_in_blender(OPENER, {"blend": str(path), "out": str(out), "flat": flat, "percent": percent}, out)
    pictures = [from_uint8(np.asarray(Image.open(picture).convert("RGBA"))) for picture in sorted(out.glob("*.png"))]
    return json.loads((out / "facts.json").read_text()), np.stack(pictures)


@pytest.mark.slow
@pytest.mark.blender
@pytest.mark.usefixtures("blender")
def test_rendering_the_blend_is_the_orbit_again(tmp_path: Path) -> None:
    orbit = view_boxes([CRATE], sine_orbit(7, 10, 30, size_px=64), samples_per_side=5)
    save_orbit(orbit, tmp_path / "crate", for_people=False)
    save_mesh(make_block(), tmp_path / "crate" / "mesh.glb")
    assert export_source(tmp_path / "crate", tmp_path / "scene" / "crate.blend").format == "blend"
    assert [path.name for path in (tmp_path / "scene").iterdir()] == ["crate.blend"]
    facts, pictures = open_blend(tmp_path / "scene" / "crate.blend", tmp_path / "out")
    assert facts["objects"] == [["CAMERA", "orbit"], ["LIGHT", "sun"], ["MESH", "crate"]]
    np.testing.assert_allclose([facts["low"], facts["high"]], [CRATE.low, CRATE.high], atol=1e-6)
    assert facts["frames"] == [1, 7]
    assert facts["keyframes"] == [1, 2, 3, 4, 5, 6, 7]
    assert facts["size"] == [64, 64, 100]
    assert facts["packed"] == [True]
    assert facts["faces_at_edges"] == [2]  # still closed
    for picture, truth in zip(pictures, orbit.frames, strict=True):
        assert silhouette_iou(picture, truth) >= 0.98
        inside = (picture[..., 3] > 0.99) & (truth[..., 3] > 0.99)
        assert np.median(np.abs(picture - truth)[inside]) <= 1.01 / 255


@pytest.mark.blender
@pytest.mark.usefixtures("blender")
def test_the_blend_is_shaded_by_the_normals_that_a_normal_map_is_made_for(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=1, radius=0.4)
    mesh = Mesh(np.asarray(ball.vertices) * [1.0, 0.4, 0.7], np.asarray(ball.faces))
    normals = np.full((4, 4, 3), (128, 128, 255), dtype=np.uint8)
    uv = np.random.default_rng(0).random((len(mesh.faces), 3, 2))  # every triangle a chart: all vertices are doubled
    mesh = replace(mesh, texture=Texture(normals, uv, normals))
    save_blend(mesh, [Camera.looking_at_origin(0, 0, size_px=8)], tmp_path / "ball.blend")
    facts, _ = open_blend(tmp_path / "ball.blend", tmp_path / "out")
    assert facts["faces_at_edges"] == [2]
    assert facts["packed"] == [True, True]
    np.testing.assert_allclose(facts["corner_normals"], mesh.corner_normals().reshape(-1, 3), atol=2e-3)


@pytest.mark.slow
@pytest.mark.blender
@pytest.mark.usefixtures("blender")
def test_lenses_that_differ_are_animated_too_and_the_light_is_on(tmp_path: Path) -> None:
    straight = Camera.looking_at_origin(20, 15, size_px=(96, 80))
    cameras = (straight, replace(straight, focal_px=1.5 * straight.focal_px, cx_px=60.0, cy_px=33.0))
    save_blend(make_block(), cameras, tmp_path / "block.blend")
    _, pictures = open_blend(tmp_path / "block.blend", tmp_path / "out", flat=False)
    truth = view_boxes([CRATE], cameras).frames
    for picture, view in zip(pictures, truth, strict=True):
        assert silhouette_iou(picture, view) >= 0.98
    red, green, blue = pictures[0][40, 40, :3]  # the front
    assert red > 2 * green > 0
    assert red > 2 * blue > 0


@pytest.mark.slow
@pytest.mark.blender
@pytest.mark.usefixtures("blender")
def test_a_mesh_without_cameras_gets_a_turntable_that_shows_all_of_it(tmp_path: Path) -> None:
    mesh = make_block()
    save_mesh(replace(mesh, vertices=3 * mesh.vertices), tmp_path / "big.glb")
    assert main(["export", str(tmp_path / "big.glb"), "-o", str(tmp_path / "big.blend")]) == 0
    facts, pictures = open_blend(tmp_path / "big.blend", tmp_path / "out", percent=6)
    assert facts["frames"] == [1, len(pictures)]
    border = np.concatenate([pictures[:, [0, -1], :, 3].ravel(), pictures[:, :, [0, -1], 3].ravel()])
    assert border.max() == 0
    assert (pictures[..., 3] > 0.5).mean(axis=(1, 2)).min() > 0.15


@pytest.mark.usefixtures("no_blender")
def test_without_blender_one_line_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(Mv3dError, match=r"there is no Blender here: run `python -m mv3d.blender install`"):
        save_blend(make_block(), sine_orbit(3, 0, 0, size_px=16), tmp_path / "block.blend")
    assert list(tmp_path.iterdir()) == []

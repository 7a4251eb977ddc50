from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from mv3d.blender import RenderSettings, find_blender, render_in_blender
from mv3d.cameras import Camera, static_orbit
from mv3d.errors import Mv3dError
from mv3d.export import save_mesh
from mv3d.lift import lift_orbit
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit, composite
from tests.mv3d.blocks import CRATE, FRONT, RIGHT, SIDE_COLOURS, make_block, silhouette_iou, view_boxes

OBJECTS = ("blendswap-cc-0/teddybear", "blendswap-cc-by/plaidchair", "scopia/gaz_water_heater")
SIZE_PX = 256


@pytest.fixture
def blender() -> None:
    if find_blender() is None:
        pytest.skip("no Blender: run `python -m mv3d.blender install`")


def real_scene(object_id: str):
    """A real object's scene for our ray caster; skips where the libraries are not installed."""
    pytest.importorskip("embreex", reason="the ray caster needs the extra `render`")
    from render.scene import make_scene
    from render.sources import find_objects

    folder = Path(os.environ.get("MV3D_FURNITURE", "/usr/share/sweethome3d/furniture"))
    if not folder.is_dir():
        pytest.skip(f"no real objects: {folder} is missing; name a folder of .sh3f libraries in MV3D_FURNITURE")
    library = next(p for p in folder.glob("*.sh3f") if p.stem.lower() == object_id.split("/")[0])
    found = next(item for item in find_objects(library) if item.object_id == object_id)
    return make_scene(found.load(), linear_colours=found.linear_colours)


def our_views(object_id: str, cameras: tuple[Camera, ...]) -> Orbit:
    from render.raycast import render_orbit

    # An odd number of rays: no pixel is covered by exactly one half.
    return Orbit(render_orbit(real_scene(object_id), cameras, lights=None, samples_per_side=5), cameras)


@pytest.mark.slow
@pytest.mark.blender
@pytest.mark.usefixtures("blender")
@pytest.mark.parametrize("object_id", OBJECTS)
def test_blender_and_our_ray_caster_see_the_same_silhouettes(object_id: str, tmp_path: Path) -> None:
    cameras = static_orbit(5, 18, size_px=SIZE_PX)
    ours = our_views(object_id, cameras)
    corners = real_scene(object_id).corners.astype(np.float64)
    triangles = Mesh(corners.reshape(-1, 3), np.arange(corners.size // 3).reshape(-1, 3))
    save_mesh(triangles, tmp_path / "object.glb")
    pictures = render_in_blender(tmp_path / "object.glb", cameras)
    for k in range(len(cameras)):
        assert silhouette_iou(pictures[k], ours.frames[k]) >= 0.99


@pytest.mark.slow
@pytest.mark.blender
@pytest.mark.usefixtures("blender")
@pytest.mark.parametrize("object_id", OBJECTS)
def test_a_lifted_object_looks_in_blender_as_its_views_do(object_id: str, tmp_path: Path) -> None:
    views = our_views(object_id, static_orbit(21, 18, size_px=128))
    save_mesh(lift_orbit(views), tmp_path / "lifted.glb")
    some = [0, 5, 10, 16]
    pictures = render_in_blender(tmp_path / "lifted.glb", [views.cameras[k] for k in some])
    for picture, k in zip(pictures, some, strict=True):
        assert silhouette_iou(picture, views.frames[k]) >= 0.95
        difference = np.abs(composite(picture) - views.on()[k])[views.frames[k, ..., 3] > 0.99]
        assert np.median(difference) < 0.04


@pytest.mark.blender
@pytest.mark.usefixtures("blender")
@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".stl", ".usda", ".usdc", ".usdz"])
def test_every_format_stands_in_blender_as_in_our_world(tmp_path: Path, suffix: str) -> None:
    if suffix.startswith(".usd"):
        pytest.importorskip("pxr", reason="USD needs usd-core")
    cameras = [Camera.looking_at_origin(azimuth, 20, size_px=(96, 64)) for azimuth in (10, 130)]
    save_mesh(make_block(), tmp_path / f"block{suffix}")
    pictures = render_in_blender(tmp_path / f"block{suffix}", cameras)
    for picture, truth in zip(pictures, view_boxes([CRATE], cameras).frames, strict=True):
        assert silhouette_iou(picture, truth) >= 0.99


@pytest.mark.blender
@pytest.mark.usefixtures("blender")
@pytest.mark.parametrize("suffix", [".glb", ".obj", ".usdc", ".usdz"])
def test_colours_show_without_further_ado(tmp_path: Path, suffix: str) -> None:
    if suffix.startswith(".usd"):
        pytest.importorskip("pxr", reason="USD needs usd-core")
    cameras = [Camera.looking_at_origin(azimuth, 0, size_px=32) for azimuth in (0, 90)]
    save_mesh(make_block(), tmp_path / f"block{suffix}")
    pictures = render_in_blender(tmp_path / f"block{suffix}", cameras)
    for picture, side in zip(pictures, (FRONT, RIGHT), strict=True):
        np.testing.assert_allclose(picture[16, 16, :3] * 255, SIDE_COLOURS[side], atol=1)
        assert picture[16, 16, 3] == 1


@pytest.mark.blender
@pytest.mark.usefixtures("blender")
def test_a_principal_point_off_the_centre_is_the_lens_shift(tmp_path: Path) -> None:
    straight = Camera.looking_at_origin(20, 15, size_px=96)
    shifted = Camera(straight.world_from_cam, straight.focal_px, 96, 80, 55.0, 30.0)
    save_mesh(make_block(), tmp_path / "block.glb")
    (picture,) = render_in_blender(tmp_path / "block.glb", [shifted])
    assert silhouette_iou(picture, view_boxes([CRATE], [shifted]).frames[0]) >= 0.99


@pytest.mark.blender
@pytest.mark.usefixtures("blender")
def test_lit_materials_keep_their_hue_and_get_shading(tmp_path: Path) -> None:
    camera = Camera.looking_at_origin(0, 0, size_px=32)
    save_mesh(make_block(), tmp_path / "block.glb")
    (lit,) = render_in_blender(tmp_path / "block.glb", [camera], RenderSettings(shading="lit", samples=4))
    red, green, blue = lit[16, 16, :3]
    assert red > 2 * green
    assert red > 2 * blue


@pytest.mark.blender
@pytest.mark.usefixtures("blender")
def test_its_log_is_shown_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "broken.glb").write_bytes(b"glTF, or so it says")
    with pytest.raises(Mv3dError, match=r"(?s)failed with exit code 1.*GLB version"):
        render_in_blender(tmp_path / "broken.glb", static_orbit(1, 0, size_px=16))


def test_a_name_that_is_no_program_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MV3D_BLENDER", "/no/such/blender")
    with pytest.raises(Mv3dError, match="MV3D_BLENDER=/no/such/blender"):
        find_blender()


def test_a_named_program_is_called_as_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MV3D_BLENDER", sys.executable)
    command = find_blender()
    assert command is not None
    assert command[0] == sys.executable
    assert len(command) == 2
    blender = tmp_path / "blender"
    blender.symlink_to(sys.executable)
    monkeypatch.setenv("MV3D_BLENDER", str(blender))
    command = find_blender()
    assert command is not None
    assert command[:2] == [str(blender), "--background"]
    assert command[-1] == "--"

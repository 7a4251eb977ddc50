from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mv3d.blender import RenderSettings, find_blender, install, render_in_blender
from mv3d.cameras import Camera, static_orbit
from mv3d.cli import main
from mv3d.errors import Mv3dError
from mv3d.export import save_mesh
from mv3d.lift import lift_orbit
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit
from mv3d.pixels import composite
from tests.mv3d.blocks import CRATE, FRONT, RIGHT, SIDE_COLOURS, make_block, silhouette_iou, view_boxes

OBJECTS = ("blendswap-cc-0/teddybear", "blendswap-cc-by/plaidchair", "scopia/gaz_water_heater")
SIZE_PX = 256
PYTHON = Path("Scripts/python.exe" if os.name == "nt" else "bin/python")  # in a virtual environment


def real_scene(object_id: str):
    """A real object's scene for our ray caster; skips where the libraries are not installed."""
    pytest.importorskip("embreex", reason="the ray caster needs the extra `render`")
    from render.scene.scene import make_scene
    from render.sources import find_objects

    folder = Path(os.environ.get("MV3D_FURNITURE", "/usr/share/sweethome3d/furniture"))
    if not folder.is_dir():
        pytest.skip(f"no real objects: {folder} is missing; name a folder of .sh3f libraries in MV3D_FURNITURE")
    library = next(p for p in folder.glob("*.sh3f") if p.stem.lower() == object_id.split("/")[0])
    found = next(item for item in find_objects(library) if item.object_id == object_id)
    return make_scene(found.load(), linear_colours=found.linear_colours)


def our_views(object_id: str, cameras: tuple[Camera, ...]) -> Orbit:
    from render.scene.raycast import render_orbit

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


@pytest.mark.slow
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


# -------------------------------------------------------------------------------------------------
# Which Blender.


def make_program(path: Path, says: str) -> Path:
    """A program that says one thing, whatever it is asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\nprint({says!r})\n")
    path.chmod(0o755)
    return path


def test_a_name_that_is_no_program_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MV3D_BLENDER", "/no/such/blender")
    with pytest.raises(Mv3dError, match="MV3D_BLENDER=/no/such/blender"):
        find_blender()


def test_a_named_program_is_called_as_what_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = make_program(tmp_path / "python", "Blender 4.5.15 LTS")
    monkeypatch.setenv("MV3D_BLENDER", str(python))
    command = find_blender()
    assert command[0] == str(python)
    assert len(command) == 2
    blender = make_program(tmp_path / "blender-5.0", "Blender 5.0.1\n\tbuild date: 2026-01-01")
    monkeypatch.setenv("MV3D_BLENDER", str(blender))
    command = find_blender()
    assert command[:2] == [str(blender), "--background"]
    assert command[-1] == "--"


@pytest.mark.usefixtures("no_blender")
@pytest.mark.parametrize("place", ["PATH", "MV3D_BLENDER"])
@pytest.mark.parametrize(
    ("says", "problem"),
    [
        (
            "Blender 3.4.1\n\tbuild date: 2023-01-01",
            "blender is Blender 3.4, and 4.2 or newer is needed: run `",
        ),
        ("a mixer for fruit", "blender does not say that it is Blender 4.2 or newer: run `python -m mv3d.blender"),
    ],
)
def test_an_old_or_foreign_blender_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    place: str,
    says: str,
    problem: str,
) -> None:
    program = make_program(tmp_path / "bin" / "blender", says)
    monkeypatch.setenv(place, str(program.parent if place == "PATH" else program))
    save_mesh(make_block(), tmp_path / "block.glb")
    assert main(["export", str(tmp_path / "block.glb"), "-o", str(tmp_path / "block.blend")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mv3d: {program} ")
    assert problem in line
    assert not (tmp_path / "block.blend").exists()


@pytest.mark.usefixtures("no_blender")
def test_a_rendering_without_blender_is_one_line_and_not_one_for_each_object(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from render.__main__ import main as render

    save_mesh(make_block(), tmp_path / "meshes" / "block.glb")
    command = ["orbits", str(tmp_path / "meshes"), "--out", str(tmp_path / "out"), "--renderer", "cycles"]
    assert render(command) == 2
    assert capsys.readouterr().err.startswith("render: there is no Blender here: run `python -m mv3d.blender install`")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_blender")
def test_an_installed_blender_is_found_from_everywhere_and_before_an_old_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = make_program(tmp_path / "bin" / "blender", "Blender 3.4.1")
    monkeypatch.setenv("PATH", str(old.parent))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME")
    python = tmp_path / "home/.local/share/mv3d/blender" / PYTHON
    make_program(python, "")
    assert find_blender()[0] == str(python)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    python = tmp_path / "data/mv3d/blender" / PYTHON
    make_program(python, "")
    assert find_blender()[0] == str(python)
    make_program(tmp_path / "clone/.blender" / PYTHON, "")  # of one who works on it, with a Blender of another version
    monkeypatch.chdir(tmp_path / "clone")
    assert find_blender()[0] == str(tmp_path / "clone/.blender" / PYTHON)


@pytest.mark.usefixtures("no_blender")
@pytest.mark.parametrize("fails", [None, "pip", "import bpy"])
def test_an_installation_is_whole_or_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: str | None) -> None:
    """With everything but the download."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 11, 0, "final", 0))

    def run(step: Sequence[str], **_: object) -> subprocess.CompletedProcess:
        if "venv" in step:
            make_program(Path(step[-1]) / PYTHON, "")
        return subprocess.CompletedProcess(step, 1 if fails and fails in " ".join(step) else 0)

    monkeypatch.setattr(subprocess, "run", run)
    if fails:
        with pytest.raises(Mv3dError, match=f"making .*blender failed at: .*{fails}"):
            install()
        assert list((tmp_path / "mv3d").iterdir()) == []
        return
    assert str(install()) == find_blender()[0]
    assert [path.name for path in (tmp_path / "mv3d").iterdir()] == ["blender"]
    with pytest.raises(Mv3dError, match="blender exists already; remove it first"):
        install()

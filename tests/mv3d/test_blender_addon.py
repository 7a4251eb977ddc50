"""The Blender add-on, in Blender without a window."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from mv3d.blender import run_in_blender
from mv3d.export import load_mesh, save_mesh
from tests.mv3d.blocks import CRATE, make_block

ROOT = Path(__file__).parents[2]
ADDON = ROOT / "assets" / "blender_addon" / "mv3d_addon.py"
RUNNER = Path(__file__).with_name("run_addon.py")
MV3D = Path(sys.executable).with_name("mv3d")

pytestmark = [pytest.mark.blender, pytest.mark.usefixtures("blender")]


def run_addon(out: Path, *, modal: bool = False, **settings: object) -> dict:
    out.mkdir()
    run_in_blender(RUNNER, {"addon": str(ADDON), "settings": settings, "modal": modal, "out": str(out)}, out)
    facts = json.loads((out / "facts.json").read_text())
    assert facts["panel"] == "Image to 3D (mv3d)"
    assert facts["unregistered"]
    assert not facts["left"]
    return facts


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A program in mv3d's place that "makes" a mesh that is there already, once its progress has been seen.

    It fails for bad.png, makes a mesh that is none of odd.png, and fails after the frames of half.png.
    """
    save_mesh(make_block(), tmp_path / "block.glb")
    program = tmp_path / "mv3d"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os, shutil, sys, time\n"
        "assert sys.argv[1] == 'orbit' and '--mesh' in sys.argv and os.environ['MV3D_PROGRESS'] == '1'\n"
        "for step in range(4):\n"
        "    print(f'\\rphoto.png: views   {25 * step:3}%|##  | 0:0{step} left', end='', file=sys.stderr, flush=True)\n"
        "if 'bad' in sys.argv[2]: sys.exit('\\nmv3d: bad.png is no picture')\n"
        "out = sys.argv[sys.argv.index('-o') + 1]\n"
        "if 'half' in sys.argv[2]: os.mkdir(out); sys.exit('\\nmv3d: no mesh')\n"
        "if 'odd' in sys.argv[2]: os.mkdir(out); sys.exit(open(out + '/mesh.glb', 'w').close())\n"
        "ends = time.time() + 60\n"
        f"while not os.path.exists({str(tmp_path / 'out' / 'seen')!r}):\n"
        "    time.sleep(0.01)\n"
        "    if time.time() > ends: sys.exit('\\nmv3d: nobody looked')\n"
        f"json.dump(sys.argv[1:], open({str(tmp_path / 'asked.json')!r}, 'w'))\n"
        f"os.mkdir(out); shutil.copy({str(tmp_path / 'block.glb')!r}, out + '/mesh.glb')\n"
    )
    program.chmod(0o755)
    return program


def test_the_button_imports_the_mesh_while_blender_goes_on(stand_in: Path, tmp_path: Path) -> None:
    mug_png, kept = tmp_path / "mug.png", tmp_path / "mug_orbit_2"
    (tmp_path / "mug_orbit").mkdir()  # of an earlier picture, or by hand
    facts = run_addon(
        tmp_path / "out",
        modal=True,
        picture=str(mug_png),
        command=str(stand_in),
        faces=600,
        texture_size=2048,
        delight=True,
        seed=7,
    )
    assert facts["ended"] == ["FINISHED"]
    assert facts["progress"] == [
        0.75,
        "views",
        "0:03",
    ]  # seen while the process ran, which then waited for that: no event had to wait
    assert facts["reports"][0].startswith("mv3d: mug in ")
    assert facts["reports"][0].endswith(f"; kept in {kept}")
    assert [path.name for path in kept.iterdir()] == ["mesh.glb"]
    assert not list((tmp_path / "mug_orbit").iterdir())
    asked = json.loads((tmp_path / "asked.json").read_text())
    assert asked[:3] == ["orbit", str(mug_png), "--mesh"]
    assert asked[5:] == ["--elevation", "10", "--texture-size", "2048", "--seed", "7", "--faces", "600", "--delight"]
    (mug,) = facts["objects"]
    assert (mug["name"], mug["type"]) == ("mug", "MESH")
    np.testing.assert_allclose(mug["size"], np.subtract(CRATE.high, CRATE.low), atol=1e-5)
    assert mug["textures"] == [[[48, 8], True]]
    assert mug["faces"] == 12


@pytest.mark.slow
def test_what_was_made_is_kept_when_the_rest_fails(stand_in: Path, tmp_path: Path) -> None:
    facts = run_addon(tmp_path / "odd", modal=True, picture=str(tmp_path / "odd.png"), command=str(stand_in))
    mesh = tmp_path / "odd_orbit" / "mesh.glb"
    assert facts["ended"] == ["CANCELLED"]
    assert facts["reports"][0].startswith(f"mv3d: {mesh} is made, but Blender could not import it: ")
    assert mesh.exists()
    facts = run_addon(tmp_path / "half", modal=True, picture=str(tmp_path / "half.png"), command=str(stand_in))
    kept = tmp_path / "half_orbit"
    assert facts["reports"] == [f"mv3d: no mesh (what there is of it is kept in {kept})"]
    assert kept.is_dir()


def test_a_blender_that_is_too_old_says_so(tmp_path: Path) -> None:
    tmp_path = tmp_path / "out"
    tmp_path.mkdir()
    job = {"addon": str(ADDON), "settings": {}, "modal": False, "out": str(tmp_path), "version": [3, 6, 12]}
    run_in_blender(RUNNER, job, tmp_path)
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["said"] == ["Needs Blender 4.2 or newer;", "this is 3.6."]
    assert (facts["panel"], facts["registered"], facts["unregistered"]) == ("Image to 3D (mv3d)", False, True)


@pytest.mark.slow
def test_what_goes_wrong_is_one_line(stand_in: Path, tmp_path: Path) -> None:
    facts = run_addon(tmp_path / "bad", modal=True, picture="/photos/bad.png", command=str(stand_in))
    assert (facts["ended"], facts["reports"]) == (["CANCELLED"], ["mv3d: bad.png is no picture"])
    assert facts["objects"] == []
    facts = run_addon(tmp_path / "none", picture="/photos/mug.png", command="/no/such/mv3d")
    assert "there is no command /no/such/mv3d: install mv3d" in facts["error"]
    facts = run_addon(tmp_path / "unnamed", command=str(stand_in))
    assert "choose a picture first" in facts["error"]


@pytest.mark.slow
@pytest.mark.skipif(not MV3D.exists() and shutil.which("mv3d") is None, reason="mv3d is not installed")
def test_the_installed_mv3d_makes_a_chair_that_stands_upright(tmp_path: Path) -> None:
    command = str(MV3D if MV3D.exists() else shutil.which("mv3d"))
    chair = ROOT / "assets" / "chair.png"
    chair = Path(shutil.copy(chair, tmp_path / "chair.png"))
    facts = run_addon(
        tmp_path / "out",
        picture=str(chair),
        command=command,
        preview=True,
        elevation=15.0,
        faces=2000,
        texture_size=512,
    )
    assert facts["ended"] == ["FINISHED"]
    (made,) = facts["objects"]
    assert made["name"] == "chair"
    width, depth, height = made["size"]
    assert height > 1.2 * max(width, depth)
    colour, normals = made["textures"]
    assert colour == normals == [[512, 512], True]
    assert 1000 < made["faces"] <= 2000
    assert (tmp_path / "chair_orbit" / "sheet.png").exists()
    mesh = load_mesh(tmp_path / "out" / "result.glb")
    assert mesh.texture is not None
    (tmp_path / "broken.png").write_text("no picture")
    facts = run_addon(tmp_path / "bad", picture=str(tmp_path / "broken.png"), command=command)
    assert facts["error"].strip().endswith("broken.png is no picture mv3d can read; convert it to PNG or JPEG")
    assert facts["objects"] == []

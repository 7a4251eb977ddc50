"""Lifting by nerfstudio's commands, with stand-ins for them that write what nerfstudio 1.1.5 writes, where it does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from mv3d.cameras import sine_orbit
from mv3d.errors import Mv3dError
from mv3d.lift.nerfstudio import lift_with_nerfstudio
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit, load_orbit
from tests.mv3d.blocks import CRATE, make_block, view_boxes

ROTATION = Rotation.from_euler("xyz", [80, -35, 20], degrees=True).as_matrix()
SHIFT, SCALE = np.array([0.3, -0.7, 0.2]), 0.37

TRAIN = """
import json, os, shutil, sys
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
if os.environ.get("NS_FAILS"): print("CUDA out of memory"); sys.exit(1)
print("training", sys.argv[1])
name = "nerfacto" if sys.argv[1] == "nerfacto-big" else sys.argv[1]
base = os.path.join(given["--output-dir"], given["--experiment-name"], name, given["--timestamp"])
os.makedirs(os.path.join(base, "nerfstudio_models"))
open(os.path.join(base, "nerfstudio_models", "step-000004999.ckpt"), "w").close()
open(os.path.join(base, "config.yml"), "w").write("!!python/object:nerfstudio.engine.trainer.TrainerConfig")
if not os.environ.get("NS_FORGETS"):
    shutil.copy(os.path.join(PREPARED, "dataparser_transforms.json"), base)
shutil.copytree(given["--data"], os.path.join(PREPARED, "data"))
json.dump(sys.argv, open(os.path.join(PREPARED, "train.json"), "w"))
"""

EXPORT = """
import json, os, shutil, sys
assert os.path.isfile(sys.argv[sys.argv.index("--load-config") + 1])
out = sys.argv[sys.argv.index("--output-dir") + 1]
os.makedirs(out)
for name in ("mesh.obj", "material_0.mtl", "material_0.png"):
    shutil.copy(os.path.join(PREPARED, name), out)
json.dump(sys.argv, open(os.path.join(PREPARED, "export.json"), "w"))
"""


def write_as_nerfstudio_does(mesh: Mesh, folder: Path) -> None:
    """The files of nerfstudio's texture_utils.py and ``save_dataparser_transform``, in trained coordinates."""
    assert mesh.texture is not None
    trained = SCALE * (mesh.vertices @ ROTATION.T + SHIFT)
    lines = ["# Generated with nerfstudio", "mtllib material_0.mtl", "usemtl material_0"]
    lines += [f"v {x} {y} {z}" for x, y, z in trained]
    lines += [f"vt {u} {v}" for u, v in mesh.texture.corner_uv.reshape(-1, 2)]
    lines += [f"vn {x} {y} {z}" for x, y, z in mesh.vertex_normals() @ ROTATION.T]
    for k, face in enumerate(mesh.faces):
        corners = [f"{vertex + 1}/{3 * k + corner + 1}/{vertex + 1}" for corner, vertex in enumerate(face)]
        lines.append(f"f {' '.join(corners)}")
    (folder / "mesh.obj").write_text("\n".join(lines) + "\n")
    (folder / "material_0.mtl").write_text(
        "# Generated with nerfstudio\nnewmtl material_0\nKa 1.000 1.000 1.000\nKd 1.000 1.000 1.000\n"
        "Ks 0.000 0.000 0.000\nd 1.0\nillum 2\nNs 1.00000000\nmap_Kd material_0.png\n"
    )
    Image.fromarray(mesh.texture.pixels).save(folder / "material_0.png")
    transform = np.concatenate([ROTATION, SHIFT[:, None]], axis=1)
    stored = {"transform": transform.tolist(), "scale": SCALE}
    (folder / "dataparser_transforms.json").write_text(json.dumps(stored, indent=4))


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins on the PATH; the folder with what they write, and with what they were asked."""
    folder, programs = tmp_path / "prepared", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    write_as_nerfstudio_does(make_block(), folder)
    for name, code in (("ns-train", TRAIN), ("ns-export", EXPORT)):
        (programs / name).write_text(f"#!{sys.executable}\nPREPARED = {str(folder)!r}\n{code}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return folder


@pytest.fixture
def orbit() -> Orbit:
    return view_boxes([CRATE], sine_orbit(5, 10, 30, size_px=16))


@pytest.mark.parametrize("method", ["nerfacto", "nerfacto-big"])
def test_the_mesh_comes_back_into_the_orbit_s_world_and_scale(prepared: Path, orbit: Orbit, method: str) -> None:
    mesh = lift_with_nerfstudio(orbit, method=method, steps=7)
    block = make_block()
    np.testing.assert_allclose(mesh.vertices[mesh.faces], block.vertices[block.faces], atol=1e-6)
    assert mesh.is_watertight
    assert mesh.texture is not None
    assert block.texture is not None
    np.testing.assert_array_equal(mesh.texture.pixels, block.texture.pixels)
    np.testing.assert_allclose(mesh.texture.corner_uv, block.texture.corner_uv, atol=1e-6)


def test_nerfstudio_gets_the_views_and_is_asked_for_all_of_the_object(prepared: Path, orbit: Orbit) -> None:
    lift_with_nerfstudio(orbit, steps=7, faces=1234)
    np.testing.assert_allclose(load_orbit(prepared / "data").frames, orbit.frames, atol=0.51 / 255)
    train = json.loads((prepared / "train.json").read_text())
    assert train[train.index("--max-num-iterations") + 1] == "7"
    assert train.index("nerfstudio-data") < train.index("--center-method")  # the parser's options follow its name
    export = json.loads((prepared / "export.json").read_text())
    assert export[1] == "tsdf"
    assert export[export.index("--target-num-faces") + 1] == "1234"
    low, high = (
        np.array(export[export.index(name) + 1 : export.index(name) + 4], dtype=float)
        for name in ("--bounding-box-min", "--bounding-box-max")
    )
    trained = SCALE * (make_block().vertices @ ROTATION.T + SHIFT)
    assert (trained > low).all()
    assert (trained < high).all()


def test_what_goes_wrong_is_said(prepared: Path, orbit: Orbit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("NS_FAILS", "1")
        with pytest.raises(Mv3dError, match=r"(?s)ns-train failed with exit code 1.*CUDA out of memory"):
            lift_with_nerfstudio(orbit)
    with monkeypatch.context() as patch:
        patch.setenv("NS_FORGETS", "1")
        with pytest.raises(Mv3dError, match="wrote no dataparser_transforms.json"):
            lift_with_nerfstudio(orbit)
    (tmp_path / "bin" / "ns-export").unlink()
    with pytest.raises(Mv3dError, match=r"\(ns-export not on the PATH\): install it.*pip install nerfstudio"):
        lift_with_nerfstudio(orbit)

"""Lifting by nerfstudio's commands, with stand-ins for them that write what nerfstudio 1.1.5 writes, where it does."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mv3d.cameras import sine_orbit
from mv3d.errors import Mv3dError
from mv3d.export import save_mesh
from mv3d.lift import LiftSettings
from mv3d.lift.nerfstudio import lift_with_nerfstudio
from mv3d.orbit import Orbit, load_orbit
from tests.mv3d.blocks import CRATE, FRONT, SIDE_COLOURS, make_block, silhouette_iou, view_boxes

ROTATION = Rotation.from_euler("xyz", [80, -35, 20], degrees=True).as_matrix()
SHIFT, SCALE = np.array([0.3, -0.7, 0.2]), 0.37
WORLD = 30

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
import numpy as np
import trimesh
assert os.path.isfile(sys.argv[sys.argv.index("--load-config") + 1])
assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"  # what torch asks for since 2.6
out = sys.argv[sys.argv.index("--output-dir") + 1]
os.makedirs(out)
# The world that it was given to train in: that of the cameras, moved and scaled.
given = json.load(open(os.path.join(PREPARED, "data", "transforms.json")))["frames"]
given = np.array([frame["transform_matrix"] for frame in given])[:, :3, 3]
world = np.load(os.path.join(PREPARED, "positions.npy"))
size = np.linalg.norm(world[1] - world[0]) / np.linalg.norm(given[1] - given[0])
mesh = trimesh.load(os.path.join(PREPARED, "block.ply"))
for _ in range(5):
    mesh = mesh.subdivide()  # vertices everywhere, as marching cubes have them
transform = json.load(open(os.path.join(PREPARED, "dataparser_transforms.json")))
matrix = np.array(transform["transform"])
vertices = (mesh.vertices - (world[0] - size * given[0])) / size
vertices = transform["scale"] * (vertices @ matrix[:, :3].T + matrix[:, 3])
mesh = trimesh.Trimesh(vertices, mesh.faces[:, ::-1], process=False)  # inside out, as tsdf_utils.py makes it
mesh.export(os.path.join(out, "tsdf_mesh.ply"))
json.dump([vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()], open(os.path.join(PREPARED, "box.json"), "w"))
json.dump(sys.argv, open(os.path.join(PREPARED, "export.json"), "w"))
"""


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orbit: Orbit) -> Path:
    """Stand-ins on the PATH; the folder with what they write, and with what they were asked."""
    folder, programs = tmp_path / "prepared", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    block = make_block()
    save_mesh(replace(block, vertices=WORLD * block.vertices), folder / "block.ply")
    np.save(folder / "positions.npy", [camera.position for camera in orbit.cameras])
    stored = {"transform": np.concatenate([ROTATION, SHIFT[:, None]], axis=1).tolist(), "scale": SCALE}
    (folder / "dataparser_transforms.json").write_text(json.dumps(stored, indent=4))
    for name, code in (("ns-train", TRAIN), ("ns-export", EXPORT)):
        (programs / name).write_text(f"#!{sys.executable}\nPREPARED = {str(folder)!r}\n{code}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return folder


@pytest.fixture
def orbit() -> Orbit:
    """The crate in a world 30 times as large."""
    views = view_boxes([CRATE], sine_orbit(8, 0, 30, size_px=32))
    cameras = []
    for camera in views.cameras:
        world_from_cam = camera.world_from_cam.copy()
        world_from_cam[:3, 3] *= WORLD
        cameras.append(replace(camera, world_from_cam=world_from_cam))
    return Orbit(views.frames, tuple(cameras))


@pytest.mark.parametrize("method", ["nerfacto", "nerfacto-big"])
def test_the_mesh_comes_back_into_the_orbit_s_world_and_scale(prepared: Path, orbit: Orbit, method: str) -> None:
    mesh = lift_with_nerfstudio(orbit, method=method, steps=7, settings=LiftSettings(texture_px=64))
    assert mesh.is_watertight
    # The silhouettes' hull bulges over the crate's sides, so what is left of the crate inside it is the crate.
    np.testing.assert_allclose(mesh.extent, WORLD * make_block().extent, atol=0.02 * WORLD)
    assert mesh.texture is not None
    front = mesh.vertices[mesh.faces].mean(axis=1)[:, 1] < (CRATE.low[1] + 0.01) * WORLD
    colours = mesh.texture.at(mesh.texture.corner_uv[front].mean(axis=1))
    np.testing.assert_allclose(np.median(colours, axis=0), SIDE_COLOURS[FRONT], atol=12)


def test_nerfstudio_gets_the_views_and_is_asked_for_all_of_the_object(prepared: Path, orbit: Orbit) -> None:
    white = np.concatenate([orbit.on(), np.ones_like(orbit.frames[..., :1])], axis=-1)
    lift_with_nerfstudio(Orbit(white, orbit.cameras), steps=7, settings=LiftSettings(texture_px=64))
    given = load_orbit(prepared / "data")
    assert silhouette_iou(given.frames, orbit.frames) > 0.9  # cut out
    for near, camera in zip(given.cameras, orbit.cameras, strict=True):
        assert near.project(np.zeros(3))[0] == pytest.approx([16, 16], abs=2.5)
        assert near.radius == pytest.approx(camera.radius / (0.8 * WORLD), rel=0.2)  # the hull is 0.8 high, 12 px
    train = json.loads((prepared / "train.json").read_text())
    assert train[train.index("--max-num-iterations") + 1] == "7"
    assert train.index("nerfstudio-data") < train.index("--center-method")  # the parser's options follow its name
    planes = [float(train[train.index(f"--pipeline.model.{name}-plane") + 1]) for name in ("near", "far")]
    distances = [camera.radius for camera in given.cameras]
    assert planes == pytest.approx([min(distances) - 0.866, max(distances) + 0.866], abs=1e-3)
    export = json.loads((prepared / "export.json").read_text())
    assert export[1] == "tsdf"
    low, high = (
        np.array(export[export.index(name) + 1 : export.index(name) + 4], dtype=float)
        for name in ("--bounding-box-min", "--bounding-box-max")
    )
    box = json.loads((prepared / "box.json").read_text())
    assert (box[0] > low).all()
    assert (box[1] < high).all()


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

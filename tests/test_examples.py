"""Every numbered example runs, offline, on tiny data."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mv3d.cameras import static_orbit
from mv3d.export import export_source, load_mesh
from mv3d.orbit import Facts, load_orbit, save_orbit
from mv3d.pixels import to_uint8
from tests.mv3d.blocks import CRATE, view_boxes
from tests.render.conftest import make_cube_mtl, make_cube_obj

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(number: int) -> Callable[..., None]:
    (path,) = EXAMPLES.glob(f"{number:02d}_*.py")
    return runpy.run_path(str(path))["main"]


def test_examples_are_numbered_without_a_gap():
    numbers = sorted(int(path.name[:2]) for path in EXAMPLES.glob("*.py"))
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.slow
def test_an_orbit_from_python(tmp_path, capsys):
    example(1)(Path("assets/chair.png"), tmp_path / "out", preview=True)
    assert len(load_mesh(tmp_path / "out/mesh.glb").faces) > 100
    assert "view 14: azimuth 240 degrees" in capsys.readouterr().out


@pytest.mark.slow
def test_own_cameras(tmp_path, capsys):
    example(2)(Path("assets/house.png"), tmp_path / "out")
    orbit = load_orbit(tmp_path / "out")
    places = [(round(camera.azimuth_deg) % 360, round(camera.elevation_deg)) for camera in orbit.cameras]
    assert places == [(0, 20), (90, 20), (180, 20), (270, 20), (45, 70), (225, 70)]
    assert (orbit.frames[..., 3].mean(axis=(1, 2)) > 0.05).all()
    assert "for COLMAP" in capsys.readouterr().out


def test_a_nerfstudio_dataset_is_lifted(tmp_path):
    save_orbit(view_boxes([CRATE], static_orbit(6, 20.0, size_px=48)), tmp_path / "orbit", for_people=False)
    export_source(tmp_path / "orbit", tmp_path / "dataset", "nerfstudio")
    example(3)(tmp_path / "dataset", tmp_path / "object.glb", preview=True)
    assert load_mesh(tmp_path / "object.glb").is_watertight


@pytest.mark.slow
def test_a_lora_of_a_folder(tmp_path, capsys):
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes/cube.mtl").write_text(make_cube_mtl())
    for name, height in (("cube", 1), ("tower", 2), ("stele", 3)):
        (tmp_path / f"meshes/{name}.obj").write_text(make_cube_obj((1, 1, height)))
    example(4)(tmp_path / "meshes", tmp_path / "out", minutes=0.2)
    assert (tmp_path / "out/run/lora/pytorch_lora_weights.safetensors").is_file()
    assert "use it: mv3d orbit PICTURE --lora" in capsys.readouterr().out


def test_a_rivals_views_are_scored(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MV3D_CACHE", str(tmp_path / "no weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    orbit = view_boxes([CRATE], static_orbit(4, 20.0, size_px=32))
    orbit = replace(orbit, facts=Facts(input_index=0))
    save_orbit(orbit, tmp_path / "truth", for_people=False)
    (tmp_path / "rival").mkdir()
    for k, frame in enumerate(np.clip(orbit.frames + 0.1, 0, 1)):
        Image.fromarray(to_uint8(frame)).save(tmp_path / f"rival/{k:03d}.png")
    example(5)(tmp_path / "rival", tmp_path / "truth")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("rival: PSNR dB ")
    assert "LPIPS alex absent" in lines[0]
    assert any(line.startswith("input view repeated: ") for line in lines)

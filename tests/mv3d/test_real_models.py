"""Stock SVD makes clips; SVD with learnt poses and SV3D make orbits, whose opaque views lift to bodies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

import mv3d.model.checkpoints
from eval.metrics.geometry import volume_iou
from mv3d.cameras import static_orbit
from mv3d.cli import main
from mv3d.errors import Mv3dError
from mv3d.generate import GenerateSettings, generate_clip, generate_orbit
from mv3d.lift import LiftSettings, lift_orbit
from mv3d.model.alpha import to_autoencoder
from mv3d.model.checkpoints import OrbitModel, load_model
from mv3d.orbit import load_orbit, save_orbit
from tests.mv3d.blocks import CRATE, view_boxes
from tests.mv3d.test_stability import make_state

SIZE_PX = 64
VIEWS = 8
CELLS = LiftSettings(method="hull", resolution=48)
SETTINGS = GenerateSettings(VIEWS, 20.0, steps=1)


def small(model: OrbitModel) -> OrbitModel:
    return replace(model, facts=replace(model.facts, resolution_px=SIZE_PX))


@pytest.fixture(params=["SVD with poses", "SV3D_p", "SV3D_u"])
def orbit_model(request, svd_folder: Path, tmp_path: Path) -> OrbitModel:
    """A narrow model of random weights that makes orbits, as it is loaded from its files."""
    if request.param.startswith("SV3D"):
        save_file(make_state(request.param), tmp_path / "sv3d.safetensors")
        return small(load_model(tmp_path / "sv3d.safetensors"))
    stock = load_model(svd_folder)
    with torch.no_grad():
        stock.unet.add_embedding.linear_1.weight.normal_()
    mv3d.model.checkpoints.save_model(
        replace(stock, facts=replace(stock.facts, turns=True)), tmp_path / "svd", dtype=torch.float32
    )
    return small(load_model(tmp_path / "svd"))


def show(model: OrbitModel, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model's decoder give frames (N, H, W, 4) in their order, on white and without alpha, as it would."""
    left = list(to_autoencoder(torch.from_numpy(frames).permute(0, 3, 1, 2), 3))

    def decode(z: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.stack([left.pop(0) for _ in z]))

    monkeypatch.setattr(model.vae, "decode", decode)


@pytest.mark.slow
def test_an_orbit_without_alpha_lifts_to_the_body_it_shows(orbit_model, tmp_path, monkeypatch):
    truth = view_boxes([CRATE], static_orbit(VIEWS, 20, size_px=SIZE_PX))
    show(orbit_model, truth.frames, monkeypatch)
    orbit = generate_orbit(truth.frames[0], orbit_model, SETTINGS)
    assert (orbit.frames[1:, ..., 3] == 1).all()
    assert orbit.frames[0, ..., 3].min() == 0
    assert orbit.facts.made_by is not None
    assert orbit.facts.made_by.endswith("(diffusion)")  # there is no coarse network
    save_orbit(orbit, tmp_path / "orbit", for_people=False)
    assert volume_iou(lift_orbit(load_orbit(tmp_path / "orbit"), CELLS), lift_orbit(truth, CELLS)) >= 0.95


def test_views_that_show_no_object_lift_to_no_box(tmp_path, monkeypatch):
    """What a bad model shows is an error, and not the body that whole squares have."""
    save_file(make_state("SV3D_p"), tmp_path / "sv3d.safetensors")
    model = small(load_model(tmp_path / "sv3d.safetensors"))
    truth = view_boxes([CRATE], static_orbit(3, 20, size_px=SIZE_PX))
    show(model, np.random.default_rng(0).random((3, SIZE_PX, SIZE_PX, 4), dtype=np.float32), monkeypatch)
    orbit = generate_orbit(truth.frames[0], model, GenerateSettings(3, 20.0, steps=1))
    save_orbit(orbit, tmp_path / "orbit", for_people=False)
    with pytest.raises(Mv3dError, match="view 1 has neither transparency nor a plain background") as caught:
        lift_orbit(load_orbit(tmp_path / "orbit"), CELLS)
    assert "\n" not in str(caught.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a picture, where models come at a small size."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mv3d.model.checkpoints.load_model", lambda *given: small(load_model(*given)))
    picture = Image.new("RGB", (40, 32), (255, 255, 255))
    ImageDraw.Draw(picture).rectangle((12, 6, 26, 27), fill=(150, 80, 20))
    picture.save("chair.png")
    return tmp_path


def test_stock_svd_makes_a_clip_and_says_so(here, svd_folder, capsys):
    given = ["orbit", "chair.png", "--model", str(svd_folder), "--num-views", "3", "--steps", "1", "-o", "out"]
    assert main([*given, "--mesh"]) == 2
    assert "tiny-svd makes clips of a moving camera, not orbits, so it has no mesh; " in capsys.readouterr().err
    assert not Path("out").exists()

    assert main(given) == 0
    assert "clip in" in (said := capsys.readouterr().out)
    assert "It is no orbit: this model is told no cameras" in said
    found = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.*"))
    assert found == ["clip.json", "clip.mp4", *(f"frames/{k:03d}.png" for k in range(3)), "sheet.png"]
    facts = json.loads(Path("out/clip.json").read_text())["mv3d"]
    assert facts["made_by"].endswith("model tiny-svd (diffusion: a clip of no known cameras)")
    assert facts["licence"] == "see LICENSE.md of tiny-svd"
    assert np.asarray(Image.open("out/frames/000.png"))[0, 0].tolist() == [255, 255, 255, 255]  # on white as the others

    assert main(["lift", "out", "-o", "mesh.glb"]) == 2
    assert "out is a clip, no orbit: its model was told no cameras" in capsys.readouterr().err
    assert main([*given, "--overwrite", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["orbit"], printed["clip"], printed["video"]) == (None, "out", "out/clip.mp4")


def test_a_model_is_asked_for_what_it_makes(svd_folder, tiny_model):
    picture = np.ones((SIZE_PX, SIZE_PX, 4), dtype=np.float32)
    with pytest.raises(Mv3dError, match="tiny-svd makes clips of a moving camera, not orbits: it is told no cameras"):
        generate_orbit(picture, small(load_model(svd_folder)), SETTINGS)
    with pytest.raises(Mv3dError, match="tiny makes orbits, not clips"):
        generate_clip(picture, small(load_model(tiny_model)), SETTINGS)


def test_svd_as_one_file_makes_clips_too(tmp_path):
    save_file(make_state("SVD"), tmp_path / "svd.safetensors")
    assert not load_model(tmp_path / "svd.safetensors").facts.turns

"""Pictures that fill their frame become a relief, before which the camera swings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mv3d.cli import main
from mv3d.errors import Mv3dError
from mv3d.lift.raster import render_depth
from mv3d.mesh import Mesh
from mv3d.model.drawing import in_frame_radii
from mv3d.model.posed_picture import PosedPicture
from mv3d.model.relief import make_relief
from mv3d.orbit import load_orbit


def _picture(outline: bool = False) -> PosedPicture:
    rgba = torch.zeros(4, 64, 64)
    rgba[:, 16:48, 8:56] = 1
    if outline:
        rgba[3, 16:30, 8:20] = 0
    return PosedPicture(rgba, 0.0, 0.0)


def _ramp() -> Mesh:
    """A wide board before the camera, farther away on the right."""
    x, z = np.meshgrid([-2.0, 2.0], [-2.0, 2.0])
    return Mesh(np.stack([x, 0.2 * x, z], axis=-1).reshape(-1, 3), np.array([[0, 1, 2], [1, 3, 2]]))


def test_the_relief_is_closed_fills_the_picture_and_goes_in_as_the_surface_does():
    relief = make_relief(_ramp(), _picture())
    assert relief.is_watertight
    assert 0.2 < np.ptp(relief.vertices[:, 1]) < 0.35
    depth = render_depth(relief, in_frame_radii(_picture().camera(64), 64))
    solid = np.zeros((64, 64), bool)
    solid[16:48, 8:56] = True
    assert (np.isfinite(depth) == solid).mean() > 0.99
    assert (np.diff(depth[32, 12:52]) > 0).all()
    assert np.ptp(depth[20:44, 30]) < 0.02


def test_a_cut_out_is_no_relief():
    with pytest.raises(Mv3dError, match="this one has an outline; cut it out"):
        make_relief(_ramp(), _picture(outline=True))


def test_a_painting_from_the_command_line(tmp_path: Path, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(pixels).save("sea.png")
    assert main(["orbit", "sea.png", "--matte", "none", "--num-views", "4", "--model", str(tiny_model)]) == 0
    orbit = load_orbit(tmp_path / "sea_orbit")
    azimuths = [(camera.azimuth_deg + 180) % 360 - 180 for camera in orbit.cameras]
    np.testing.assert_allclose(azimuths, [0, 18, 0, -18], atol=1e-6)
    assert {round(camera.elevation_deg, 3) for camera in orbit.cameras} == {0}
    assert orbit.frames[0, 10:22, 8:24, 3].min() > 0.99
    covered = (orbit.frames[..., 3] > 0.5).mean(axis=(1, 2))
    assert covered[1] / covered[0] > 0.85  # a board, which a swing shows nearly as wide

"""Gaussian splats: the file read by plyfile, and the fit with a plain rasteriser in gsplat's place."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mv3d.cameras import static_orbit
from mv3d.conventions import to_opencv
from mv3d.errors import Mv3dError
from mv3d.lift.splats import Splats, fit_splats, optimise_splats, save_splats
from mv3d.orbit import Orbit
from tests.mv3d.blocks import CRATE, FRONT, SIDE_COLOURS, view_boxes

DEGREE_ZERO = 1 / (2 * np.sqrt(np.pi))


def rasterization(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, backgrounds
):  # gsplat 1.5's names, cut down to what is used
    """Round Gaussians, composited front to back, without tiles (Kerbl et al., 2023, equations 2 and 3)."""
    in_cam = means @ viewmats[0, :3, :3].T + viewmats[0, :3, 3]
    order = in_cam[:, 2].argsort()
    in_cam, scale = in_cam[order], scales.mean(dim=1)[order]
    centre = (in_cam @ Ks[0].T)[:, :2] / in_cam[:, 2:]
    spread = Ks[0, 0, 0] * scale / in_cam[:, 2]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    squared = (x.reshape(-1, 1) - centre[:, 0]) ** 2 + (y.reshape(-1, 1) - centre[:, 1]) ** 2
    alpha = opacities[order] * torch.exp(-squared / (2 * spread**2 + 1e-6))
    left = torch.cumprod(1 - alpha.clamp(max=0.999), dim=1)
    weights = alpha * torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], dim=1)
    picture = weights @ colors[order] + left[:, -1:] * backgrounds[0]
    return picture.reshape(1, height, width, 3), None, {}


@pytest.fixture
def orbit() -> Orbit:
    return view_boxes([CRATE], static_orbit(6, 15, size_px=16))


def difference(splats: Splats, orbit: Orbit) -> float:
    """Mean absolute difference of the splats' views and the orbit's, on white."""
    values = {name: torch.tensor(value) for name, value in vars(splats).items()}
    drawn = (values["means"], values["quaternions"], values["log_scales"].exp(), values["opacity_logits"].sigmoid())
    pictures = []
    for camera in orbit.cameras:
        pose, lens = (torch.tensor(matrix, dtype=torch.float32)[None] for matrix in to_opencv(camera))
        colours = 0.5 + DEGREE_ZERO * values["harmonics"]
        picture, _, _ = rasterization(*drawn, colours, pose, lens, camera.width_px, camera.height_px, torch.ones(1, 3))
        pictures.append(picture[0].numpy())
    return float(np.abs(np.stack(pictures) - orbit.on()).mean())


@pytest.mark.slow
def test_the_fit_explains_the_views_and_stays_in_the_world(orbit: Orbit) -> None:
    first = optimise_splats(orbit, rasterization, "cpu", steps=0, count=300)
    fitted = optimise_splats(orbit, rasterization, "cpu", steps=600, count=300)
    assert difference(fitted, orbit) < 0.35 * difference(first, orbit)
    inside = (first.means > np.array(CRATE.low) - 0.15) & (first.means < np.array(CRATE.high) + 0.15)
    assert inside.all()  # the hull of six views, in pixels of 0.08
    in_front = fitted.means[:, 1] < CRATE.low[1] + 0.1
    colour = np.median(0.5 + DEGREE_ZERO * fitted.harmonics[in_front], axis=0)
    assert np.argmax(colour) == np.argmax(SIDE_COLOURS[FRONT])
    np.testing.assert_allclose(np.linalg.norm(fitted.quaternions, axis=1), 1, atol=1e-5)


def test_the_file_is_what_viewers_of_splats_read(tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    random = np.random.default_rng(0)
    shapes = {"means": (5, 3), "log_scales": (5, 3), "quaternions": (5, 4), "opacity_logits": (5,), "harmonics": (5, 3)}
    splats = Splats(**{name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
    save_splats(splats, tmp_path / "splats.ply")
    vertices = plyfile.PlyData.read(tmp_path / "splats.ply")["vertex"]
    axes = {"": splats.means, "n": np.zeros((5, 3))}
    expected = {prefix + axis: values[:, k] for prefix, values in axes.items() for k, axis in enumerate("xyz")}
    expected |= {f"f_dc_{k}": splats.harmonics[:, k] for k in range(3)} | {"opacity": splats.opacity_logits}
    expected |= {f"scale_{k}": splats.log_scales[:, k] for k in range(3)}
    expected |= {f"rot_{k}": splats.quaternions[:, k] for k in range(4)}
    assert [property.name for property in vertices.properties] == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(vertices[name], values)


def test_what_is_missing_is_said_in_one_line(orbit: Orbit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Mv3dError, match="CUDA device, and torch finds none"):
        fit_splats(orbit, tmp_path / "splats.ply")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(Mv3dError, match="pip install gsplat"):
        fit_splats(orbit, tmp_path / "splats.ply")
    monkeypatch.setitem(sys.modules, "gsplat", ModuleType("gsplat"))
    with pytest.raises(Mv3dError, match="pip install gsplat"):
        fit_splats(orbit, tmp_path / "splats.ply")
    assert list(tmp_path.iterdir()) == []


def test_cameras_that_see_nothing_in_common_are_refused(orbit: Orbit) -> None:
    frames = orbit.frames.copy()
    frames[::2, :8], frames[1::2, 8:] = 0, 0  # upper half, lower half
    contradicting = Orbit(frames, tuple(orbit.cameras[0] for _ in range(6)))
    with pytest.raises(Mv3dError, match="too little in common"):
        optimise_splats(contradicting, rasterization, "cpu", steps=1, count=100)

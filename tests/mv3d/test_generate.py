"""Where the views of a generated orbit stand, and that the model is told."""

from __future__ import annotations

from dataclasses import replace
from math import radians

import numpy as np
import pytest
import torch

from mv3d.camera_paths import named_path
from mv3d.errors import Mv3dError
from mv3d.generate import GenerateSettings, generate, generate_orbit
from mv3d.model.checkpoints import OrbitModel, load_model
from mv3d.model.coarse_stage import CoarseObject
from mv3d.model.pipeline import make_conditions
from mv3d.model.unet import OrbitUNet
from mv3d.orbit import Orbit
from tests.tiny import TINY_UNET, blocky_picture

AZIMUTHS, ELEVATIONS = (0.0, 80.0, 170.0, 260.0, 300.0), (12.0, 30.0, -5.0, 20.0, 0.0)


@pytest.fixture(scope="module")
def model(tiny_model) -> OrbitModel:
    return load_model(str(tiny_model), "cpu")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return blocky_picture(8)


def _path(order: list[int], **more) -> GenerateSettings:
    azimuths, elevations = tuple(AZIMUTHS[k] for k in order), tuple(ELEVATIONS[k] for k in order)
    return GenerateSettings(len(order), 12.0, azimuths, elevations, **more)


def test_views_stand_where_they_are_asked_for(model, picture):
    orbit = generate_orbit(picture, model, _path([0, 1, 2, 3, 4]))
    np.testing.assert_allclose([c.azimuth_deg for c in orbit.cameras], AZIMUTHS, atol=1e-9)
    np.testing.assert_allclose([c.elevation_deg for c in orbit.cameras], ELEVATIONS, atol=1e-9)
    np.testing.assert_array_equal(orbit.frames[0], picture)


def test_a_level_turn_written_out_is_the_level_turn(model, picture):
    level = generate_orbit(picture, model, GenerateSettings(4, 12.0))
    written = generate_orbit(picture, model, GenerateSettings(4, 12.0, (0.0, 90.0, 180.0, 270.0), (12.0,) * 4))
    np.testing.assert_allclose(written.frames, level.frames, atol=1e-4)


def test_each_coarse_view_belongs_to_its_own_camera(model, picture):
    order = [0, 3, 1, 4, 2]
    straight = generate_orbit(picture, model, _path([0, 1, 2, 3, 4], preview=True))
    shuffled = generate_orbit(picture, model, _path(order, preview=True))
    np.testing.assert_allclose(shuffled.frames, straight.frames[order], atol=1e-5)
    level = generate_orbit(picture, model, replace(_path([0, 1, 2, 3, 4], preview=True), elevations_deg=None))
    assert np.abs(level.frames[1:] - straight.frames[1:]).max(axis=(1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("more", [{}, {"size_px": 48}, {"path": tuple(named_path("zoom", 4, 12.0, None))}])
def test_the_surface_is_shown_on_the_way_drawn_once_and_changes_nothing(model, picture, more, monkeypatch):
    drawn, events = [], []
    draw = CoarseObject.draw
    monkeypatch.setattr(CoarseObject, "draw", lambda *given: drawn.append(len(given[1])) or draw(*given))
    settings = GenerateSettings(4, 12.0, seed=3, **more)
    made = generate(
        picture, model, settings, lambda stage, *_: events.append(stage), on_surface=lambda orbit: events.append(orbit)
    )
    assert drawn == ([4] if not more else [4, 4])  # where the model is asked for other cameras, those are drawn too
    (shown,) = (event for event in events if isinstance(event, Orbit))
    assert [event for event in events if event != "views"] == ["coarse", shown]
    assert events.index(shown) < events.index("views")
    np.testing.assert_array_equal(shown.frames, generate_orbit(picture, model, replace(settings, preview=True)).frames)
    np.testing.assert_array_equal(made.orbit.frames, generate_orbit(picture, model, settings).frames)
    assert np.abs(made.orbit.frames - shown.frames)[1:].max() > 0.01


def test_the_diffusion_stage_is_told_polar_angle_and_azimuth_of_each_view(model, picture):
    settings = _path([0, 1, 2, 3, 4])
    given = torch.from_numpy(picture).permute(2, 0, 1)
    with torch.no_grad():
        poses = make_conditions(model, given, settings.cameras(32)).poses
    assert poses is not None
    expected = [(radians(90 - e), radians(a)) for a, e in zip(AZIMUTHS, ELEVATIONS, strict=True)]
    np.testing.assert_allclose(poses[0].numpy(), expected, atol=1e-6)


def test_a_model_that_is_told_no_cameras_refuses_other_paths(model, picture):
    deaf = replace(model, unet=OrbitUNet(**TINY_UNET, pose_embed_dim=0).eval())
    with pytest.raises(Mv3dError, match="tiny is not told cameras and makes level, even turns only"):
        generate_orbit(picture, deaf, _path([0, 1, 2, 3, 4]))
    assert len(generate_orbit(picture, deaf, GenerateSettings(5, 12.0, steps=1))) == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"azimuths_deg": (0.0, 90.0)}, "2 azimuths_deg for 3 views; give one for each"),
        ({"elevations_deg": (10.0,) * 4}, "4 elevations_deg for 3 views"),
        ({"azimuths_deg": (5.0, 90.0, 180.0)}, "azimuths_deg begin at 5; the first view is the picture, at 0"),
        ({"elevations_deg": (10.0, 85.0, 0.0)}, "a view's elevation of 85 is outside"),
        ({"elevations_deg": (10.0, float("nan"), 0.0)}, "a view's elevation of nan is outside"),
        ({"elevations_deg": (0.0, 1.0, 2.0)}, "elevations_deg begin at 0, the picture's is 10"),
    ],
)
def test_paths_that_cannot_be_are_one_line(wrong, message):
    with pytest.raises(Mv3dError, match=message):
        GenerateSettings(3, 10.0, **wrong)

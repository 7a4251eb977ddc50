"""Views from any camera, of any size: what a model cannot be asked for is carried over, drawn, or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mv3d.camera_paths import OBJECT_RADIUS, named_path
from mv3d.cameras import Camera
from mv3d.errors import Mv3dError
from mv3d.generate import GenerateSettings, PosedFrame, generate
from mv3d.model.alpha import from_autoencoder
from mv3d.model.checkpoints import OrbitModel, load_model
from mv3d.model.unet import OrbitUNet
from mv3d.reframing import framing_camera, is_alike, middle_of, reframed, squared
from tests.mv3d.blocks import CRATE, view_boxes
from tests.tiny import TINY_UNET, blocky_picture


@pytest.fixture(scope="module")
def model(tiny_model) -> OrbitModel:
    return load_model(str(tiny_model), "cpu")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return blocky_picture(4)


def _settings(cameras, **more) -> GenerateSettings:
    return GenerateSettings(len(cameras), 12.0, path=tuple(cameras), **more)


def _odd_cameras() -> list[Camera]:
    near = Camera.looking_at_origin(40, 30, 1.5, size_px=1)
    return [*named_path("zoom", 4, 12.0)[1:3], near, near.panned(8.0)]


# -------------------------------------------------------------------------------------------------
# One camera's view as another one's.


@pytest.mark.parametrize("elevation_deg", [20.0, 89.9])
def test_a_view_of_the_same_place_is_the_other_cameras_view(elevation_deg):
    place = Camera.looking_at_origin(30, min(elevation_deg, 88), 1.7, size_px=(60, 40), fov_deg=20)
    if elevation_deg > 89:
        matrix = np.array(place.world_from_cam)
        matrix[:3, :3], matrix[:3, 3] = np.eye(3), (0, 0, 1.7)  # straight from above
        place = replace(place, world_from_cam=matrix)
    wanted = place.panned(4.0)
    framing = framing_camera(wanted, OBJECT_RADIUS, 128)
    assert framing.fov_deg == pytest.approx(2 * np.degrees(np.arcsin(OBJECT_RADIUS / 1.7)))
    seen, truth = (view_boxes([CRATE], [camera]).frames for camera in (framing, wanted))
    seen[..., :3] *= seen[..., 3:]
    truth[..., :3] *= truth[..., 3:]
    found = reframed(torch.from_numpy(seen).permute(0, 3, 1, 2), [framing], [wanted])
    error = np.abs(found[0].permute(1, 2, 0).numpy() - truth[0])
    assert error.mean() < 0.01
    assert truth[..., 3].mean() > 0.2


def test_an_oblong_picture_is_the_middle_of_a_square_one():
    wanted = replace(Camera.looking_at_origin(30, 10, size_px=(60, 41)), cx_px=33.0)
    square = squared(wanted)
    whole = torch.from_numpy(view_boxes([CRATE], [square]).frames).permute(0, 3, 1, 2)
    truth = view_boxes([CRATE], [wanted]).frames
    np.testing.assert_allclose(middle_of(whole, 60, 41).permute(0, 2, 3, 1).numpy(), truth, atol=1e-6)


def test_a_sphere_that_holds_the_camera_cannot_be_framed():
    with pytest.raises(ValueError, match=r"0\.5 from the origin stands in a sphere of radius 0\.6"):
        framing_camera(Camera.looking_at_origin(0, 0, 0.5, size_px=8), 0.6, 8)


# -------------------------------------------------------------------------------------------------
# Orbits.


def test_a_path_of_the_usual_cameras_is_the_usual_orbit(model, picture):
    usual = generate(picture, model, GenerateSettings(4, 12.0)).orbit
    path = generate(picture, model, _settings(named_path("turn", 4, 12.0))).orbit
    assert path.facts.input_index == 0
    np.testing.assert_allclose(path.frames, usual.frames, atol=2e-3)


@pytest.mark.slow
def test_the_model_is_told_the_picture_first_where_the_path_has_it_elsewhere(model, picture):
    cameras = named_path("turn", 4, 12.0)
    moved = generate(picture, model, _settings([cameras[2], cameras[0], cameras[3], cameras[1]])).orbit
    straight = generate(picture, model, _settings([cameras[0], cameras[2], cameras[3], cameras[1]])).orbit
    assert moved.facts.input_index == 1
    np.testing.assert_array_equal(moved.frames, straight.frames[[1, 0, 2, 3]])
    without = generate(picture, model, _settings(cameras[1:])).orbit
    assert without.facts.input_index is None
    np.testing.assert_allclose(without.frames, generate(picture, model, _settings(cameras)).orbit.frames[1:], atol=1e-6)


def _sampling(monkeypatch, change) -> None:
    """A diffusion stage that does something simple to the drawn views."""

    def sample(model: OrbitModel, picture, cameras, settings, on_step, coarse) -> Tensor:
        return change(from_autoencoder(coarse.views[:, :4]))

    monkeypatch.setattr("mv3d.model.models.sample_clip", sample)


@pytest.mark.parametrize("size_px", [24, 32, 48])
def test_any_lens_place_and_size_is_drawn_where_the_model_changes_nothing(model, picture, monkeypatch, size_px):
    drawn = generate(picture, model, _settings(_odd_cameras(), preview=True)).orbit
    _sampling(monkeypatch, lambda views: views)
    sampled = generate(picture, model, _settings(_odd_cameras())).orbit
    assert drawn.facts.input_index is None
    solid = drawn.frames[..., 3] > 0
    np.testing.assert_allclose(sampled.frames[solid], drawn.frames[solid], atol=1e-3)
    assert drawn.frames[2, ..., 3].mean() > drawn.frames[0, ..., 3].mean() * 0.5


def test_what_the_model_changes_is_carried_over_to_other_lenses(model, picture, monkeypatch):
    """A model that makes everything darker."""
    drawn = generate(picture, model, _settings(_odd_cameras(), preview=True)).orbit
    _sampling(monkeypatch, lambda views: views * torch.tensor([0.5, 0.5, 0.5, 1.0]).view(4, 1, 1))
    sampled = generate(picture, model, _settings(_odd_cameras())).orbit
    solid = drawn.frames[..., 3] > 0.99
    error = np.abs(sampled.frames[solid] - drawn.frames[solid] * [0.5, 0.5, 0.5, 1])
    assert error.mean() < 0.03
    assert np.abs(sampled.frames[solid] - drawn.frames[solid]).mean() > 0.1


@pytest.mark.parametrize("size_px", [20, 32, 80])
def test_frames_are_as_large_as_asked_for(model, picture, size_px):
    for preview in (True, False):
        orbit = generate(picture, model, GenerateSettings(2, 12.0, size_px=size_px, preview=preview)).orbit
        assert orbit.frames.shape == (2, size_px, size_px, 4)
        assert orbit.cameras[1].width_px == size_px
        assert orbit.cameras[1].fov_deg == pytest.approx(33.8)
    oblong = [replace(squared(c), width_px=3, height_px=2, cx_px=1.5, cy_px=1.0) for c in named_path("dolly", 2, 12.0)]
    oblong = [replace(camera, focal_px=camera.focal_px * 3) for camera in oblong]
    orbit = generate(picture, model, _settings(oblong, size_px=48, preview=True)).orbit
    assert orbit.frames.shape == (2, 32, 48, 4)


def test_a_larger_picture_makes_larger_drawn_views_sharper(model, picture):
    fine = picture.repeat(2, 0).repeat(2, 1)
    fine[::2, :, :3] *= 0.5  # stripes that 32 px cannot show
    settings = GenerateSettings(1, 12.0, path=(Camera.looking_at_origin(3, 12, size_px=1),), size_px=64, preview=True)
    frames = [generate(given, model, settings).orbit.frames[0] for given in (fine, picture)]
    seen = frames[0][..., 3] > 0.99
    stripes = [np.abs(np.diff(frame[..., :3], axis=0))[seen[1:]].mean() for frame in frames]
    assert stripes[0] > 1.5 * stripes[1]


def test_a_mesh_of_a_path_is_textured_from_all_around(model, picture):
    side = PosedFrame(picture, 90.0, 12.0)
    made = generate(picture, model, _settings(named_path("swing", 3, 12.0), preview=True), more=[side])
    views = made.texture_views()
    azimuths = sorted(camera.azimuth_deg for camera in views.cameras)
    assert max(np.diff([*azimuths, 360])) < 20
    np.testing.assert_array_equal(views.frames[0], picture)
    np.testing.assert_array_equal(views.frames[-1], picture)
    assert views.cameras[-1].azimuth_deg == pytest.approx(90)


def test_a_model_without_a_surface_says_what_it_cannot_be_told(model, picture):
    """As SV3D."""
    told = replace(model, coarse=None, unet=OrbitUNet(**TINY_UNET, pose_embed_dim=16).eval())
    swung = generate(picture, told, _settings(named_path("swing", 3, 12.0))).orbit
    assert len(swung) == 3
    with pytest.raises(Mv3dError, match="tiny makes views from one distance, .* camera 1 of the path") as error:
        generate(picture, told, _settings(named_path("zoom", 3, 12.0)))
    assert error.value.argument == "path"
    with pytest.raises(Mv3dError, match="tiny makes views of 32 px; ask for no more"):
        generate(np.ones((64, 64, 4), np.float32), told, GenerateSettings(2, 12.0, size_px=64))
    with pytest.raises(Mv3dError, match="tiny sees one picture"):
        generate(picture, told, more=[PosedFrame(picture, 180.0, 12.0)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"path": named_path("turn", 2, 0.0)}, "a path of 2 cameras for 3 views"),
        ({"path": named_path("turn", 3, 0.0), "azimuths_deg": (0.0, 1.0, 2.0)}, "give one of them"),
        (
            {"path": (Camera.looking_at_origin(0, 0, 0.5, size_px=4),) * 3},
            "camera 0 of the path is 0.5 from the origin",
        ),
        ({"size_px": 8}, "size 8 is outside 16 to 2048 px"),
    ],
)
def test_settings_that_cannot_be_are_one_line(wrong, message):
    with pytest.raises(Mv3dError, match=message):
        GenerateSettings(3, 10.0, **wrong)


def test_cameras_are_alike_whatever_their_size():
    camera = Camera.looking_at_origin(10, 20, size_px=64)
    assert is_alike(camera, camera.resized(32, 32))
    assert not is_alike(camera, Camera.looking_at_origin(10, 20, size_px=64, fov_deg=30))
    assert not is_alike(camera, Camera.looking_at_origin(11, 20, size_px=64))

"""Paths of the camera: named ones, ways through key-frames, and the files that ask for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from mv3d.camera_paths import OBJECT_RADIUS, KeyFrame, PathName, key_frame_path, named_path, views_in
from mv3d.cameras import Camera, static_orbit
from mv3d.conventions import to_nerf_synthetic, to_nerfstudio
from mv3d.errors import Mv3dError
from mv3d.option_settings import orbit_settings
from mv3d.options import OrbitOptions
from mv3d.path_files import load_path_file
from mv3d.reframing import is_alike

PICTURE = Camera.looking_at_origin(0, 12, size_px=1)


def _table(cameras) -> np.ndarray:
    """Azimuth (unwrapped), elevation, distance and field of view, (N, 4)."""
    table = np.array([[c.azimuth_deg, c.elevation_deg, c.radius, c.fov_deg] for c in cameras])
    table[:, 0] = np.degrees(np.unwrap(np.radians(table[:, 0])))
    return table


@pytest.mark.parametrize("name", get_args(PathName))
def test_named_paths_begin_at_the_picture_and_loop_smoothly(name):
    cameras = named_path(name, 90, 12.0)
    assert is_alike(cameras[0], PICTURE)
    table = _table([*cameras, cameras[0], cameras[1]])
    steps = np.diff(table, axis=0) / (360, 60, 1, 20)
    assert np.abs(steps).max() < 0.07
    assert np.abs(np.diff(steps, axis=0)).max() < 0.01  # no jerk, not where it closes either
    assert np.ptp(table, axis=0).max() > 0.5  # it moves


def test_named_paths_go_where_their_names_say():
    lowest, highest = _table(named_path("top", 100, 10.0)).min(0), _table(named_path("top", 100, 10.0)).max(0)
    assert (lowest[1], highest[1]) == (pytest.approx(10), pytest.approx(78))
    swing = _table(named_path("swing", 100, 10.0, 20.0))
    assert (swing[:, 0].min(), swing[:, 0].max()) == (pytest.approx(-20), pytest.approx(20))
    assert np.abs(swing[:, 1] - 10).max() == pytest.approx(4, abs=0.01)
    spiral = _table(named_path("spiral", 100, 10.0))
    assert spiral[:, 1].max() == pytest.approx(60)
    assert spiral[-1, 0] == pytest.approx(720 - 7.2)
    zoom = named_path("zoom", 100, 10.0)[50]
    assert zoom.focal_px / zoom.width_px == pytest.approx(2 * PICTURE.focal_px)
    assert _table(named_path("dolly", 100, 10.0))[50, 2] == pytest.approx(1.4)


def test_a_way_through_key_frames_meets_them_and_never_overshoots():
    keys = [KeyFrame(0, 0, 2.2, 30, 0), KeyFrame(90, 20, 2.2, 30, 1), KeyFrame(90, 50, 3.0, 20, 3)]
    table = _table(key_frame_path(keys, 61))
    np.testing.assert_allclose(table[[0, 20, 60]], [[0, 0, 2.2, 30], [90, 20, 2.2, 30], [90, 50, 3, 20]], atol=1e-6)
    assert table[:, 0].max() <= 90 + 1e-9
    assert np.diff(table[:, 1]).min() > 0
    # Smooth: the speed changes little from one view to the next.
    assert np.abs(np.diff(table[:, 1], 2)).max() < 0.12


def test_key_frames_that_end_where_they_began_are_a_loop():
    keys = [KeyFrame(0, 10), KeyFrame(180, 40, seconds=2), KeyFrame(360, 10, seconds=4)]
    table = _table(key_frame_path(keys, 40))
    around = np.vstack([table, table[:2] + [360, 0, 0, 0]])
    assert np.abs(np.diff(around[:, 1], 2)).max() < 0.6
    assert around[-2, 0] - around[-3, 0] == pytest.approx(9, abs=0.5)
    assert (views_in(keys, 10), views_in(keys[:2], 10)) == (40, 21)


@pytest.mark.parametrize("name", ["keys.yaml", "keys.json"])
def test_a_file_says_only_what_changes(tmp_path: Path, name):
    path = tmp_path / name
    path.write_text('[{"lens": 40}, {"azimuth": 30, "seconds": 1}, {"distance": 3, "seconds": 1.5}]')
    file = load_path_file(path)
    table = _table(file.cameras(15.0, None, 20.0))
    assert len(table) == 31
    np.testing.assert_allclose(table[[0, 20, 30]], [[0, 15, 2.2, 40], [30, 15, 2.2, 40], [30, 15, 3, 40]], atol=1e-6)
    assert file.seconds == 1.5
    settings = orbit_settings(OrbitOptions(path=str(path), num_views=7), 15.0)
    assert len(settings.cameras(64)) == settings.num_views == 7
    assert settings.cameras(64)[0].width_px == 64


def test_targets_of_mv3d_are_turned_to_their_picture(tmp_path: Path):
    cameras = [Camera.looking_at_origin(azimuth, 25, size_px=(40, 30)) for azimuth in (100, 130, 200)]
    frames = [to_nerfstudio(camera) | {"file_path": "lost.png"} for camera in cameras]
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames, "mv3d": {"input_index": 1}}))
    file = load_path_file(tmp_path)
    assert file.elevation_deg == pytest.approx(25)
    settings = orbit_settings(OrbitOptions(path=str(tmp_path)), 10.0)
    assert settings.elevation_deg == pytest.approx(25)
    wanted = settings.cameras(80)
    assert [(c.width_px, c.height_px) for c in wanted] == [(80, 60)] * 3
    np.testing.assert_allclose([(c.azimuth_deg + 90) % 360 - 90 for c in wanted], [-30, 0, 70], atol=1e-6)
    assert all(c.fov_deg == pytest.approx(cameras[0].fov_deg) for c in wanted)


def test_targets_of_others_are_brought_to_our_scale(tmp_path: Path):
    """NeRF-synthetic's cameras stand 4 away and tell no size of their pictures."""
    cameras = static_orbit(3, 20, radius=4.0, size_px=100, fov_deg=39.6)
    frames = [to_nerf_synthetic(camera) | {"file_path": "./r_0"} for camera in cameras]
    angle = frames[0]["camera_angle_x"]
    (tmp_path / "transforms.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    camera = load_path_file(tmp_path).targets[1]
    assert camera.radius * np.sin(np.radians(camera.fov_deg / 2)) == pytest.approx(OBJECT_RADIUS)
    assert (camera.azimuth_deg, camera.elevation_deg) == (pytest.approx(120), pytest.approx(20))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "neither a transforms.json nor a list of key-frames"),
        ("[{]", "cannot be read"),
        ("[3, 4]", "key-frame 1 is 3, and no mapping of azimuth"),
        ("[{azimut: 3}]", "key-frame 1 has an unknown 'azimut'; there are azimuth, elevation"),
        ("[{}, {azimuth: far, seconds: 1}]", "key-frame 2: azimuth is 'far', and no number"),
        ("[{}, {azimuth: 3}]", "key-frame 2 does not say at how many seconds it is"),
        ("[{azimuth: 3}]", "a path needs 2 key-frames or more, and has 1"),
        ("[{seconds: 2}, {seconds: 1}]", "key-frame 2 is at 1 seconds, and the one before at 2"),
        ("[{}, {distance: 0.5, seconds: 1}]", "a key-frame's distance of 0.5 is outside 0.77 to 20"),
        ("[{}, {elevation: .nan, seconds: 1}]", "a key-frame's elevation of nan is outside -89 to 89"),
        ('{"frames": []}', "lists 0 frames"),
        ('{"frames": [{"file_path": "a"}]}', "camera 0: camera without"),
    ],
)
def test_files_that_cannot_be_are_one_line(tmp_path: Path, text, message):
    path = tmp_path / "path.yaml"
    path.write_text(text)
    with pytest.raises(Mv3dError, match="path.yaml") as error:
        orbit_settings(OrbitOptions(path=str(path)), 10.0)
    assert message in str(error.value)


def test_another_number_of_views_than_of_targets_is_refused(tmp_path: Path):
    frames = [to_nerfstudio(camera) | {"file_path": "a"} for camera in static_orbit(3, 20, size_px=8)]
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames}))
    with pytest.raises(Mv3dError, match="has 3 cameras, and num_views are 5; leave that out"):
        orbit_settings(OrbitOptions(path=str(tmp_path), num_views=5), 10.0)

"""Other systems' cameras: round trips over all cameras, and values worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from math import cos, pi, radians, sin, sqrt, tan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mv3d.cameras import Camera, static_orbit
from mv3d.conventions import (
    from_blender,
    from_colmap,
    from_nerfstudio,
    from_opencv,
    from_plucker,
    from_pytorch3d,
    from_pytorch3d_lens,
    from_sv3d,
    from_zero123,
    sv3d_order,
    to_blender,
    to_colmap,
    to_nerf_synthetic,
    to_nerfstudio,
    to_opencv,
    to_plucker,
    to_pytorch3d,
    to_pytorch3d_lens,
    to_sv3d,
    to_zero123,
)
from tests.strategies import any_cameras, assert_same, spherical_cameras


@given(any_cameras())
def test_opencv_round_trip(camera):
    assert_same(from_opencv(*to_opencv(camera), camera.width_px, camera.height_px), camera)


@given(any_cameras())
def test_colmap_round_trip(camera):
    assert_same(from_colmap(*to_colmap(camera), like=camera), camera)


@given(any_cameras())
def test_nerfstudio_round_trip(camera):
    assert_same(from_nerfstudio(to_nerfstudio(camera)), camera, atol=0)


@given(any_cameras())
def test_blender_round_trip(camera):
    assert_same(from_blender(to_blender(camera)), camera)


@given(any_cameras())
def test_pytorch3d_round_trip(camera):
    assert_same(from_pytorch3d(*to_pytorch3d(camera), like=camera), camera)
    other_lens = replace(camera, focal_px=2 * camera.focal_px, cx_px=0.0, cy_px=1.0)
    assert_same(from_pytorch3d_lens(*to_pytorch3d_lens(camera), like=other_lens), camera)


@given(any_cameras())
def test_nerf_synthetic_round_trip(camera):
    size = {"w": camera.width_px, "h": camera.height_px}
    centred = replace(camera, cx_px=camera.width_px / 2, cy_px=camera.height_px / 2)
    assert_same(from_nerfstudio(to_nerf_synthetic(centred) | size), centred, atol=1e-6 * max(1, camera.focal_px))
    with pytest.raises(ValueError, match="principal point"):
        to_nerf_synthetic(replace(centred, cx_px=centred.cx_px + 1))


@settings(max_examples=40)
@given(any_cameras())
def test_plucker_round_trip(camera):
    assert_same(from_plucker(to_plucker(camera)), camera, atol=1e-5 * max(1, camera.focal_px))


@given(spherical_cameras(), spherical_cameras())
def test_zero123_round_trip(target, source):
    like_source = replace(source, world_from_cam=target.world_from_cam)
    assert_same(from_zero123(to_zero123(target, source), source), like_source, atol=1e-6)


@given(st.lists(st.tuples(st.floats(0, 359), st.floats(-89, 89)), min_size=1, max_size=5), st.floats(0.5, 5))
def test_sv3d_round_trip(angles, radius):
    first, *rest = [Camera.looking_at_origin(a, e, radius, size_px=8) for a, e in angles]
    cameras = [first.turned(-first.azimuth_deg), *rest]
    for again, camera in zip(from_sv3d(*to_sv3d(cameras), radius, size_px=8), cameras, strict=True):
        assert_same(again, camera, atol=1e-6)


def test_opencv_camera_of_the_front_view():
    """From -Y, the world's X is right, its Z is up (so -down) and its Y is away from the camera."""
    camera = replace(Camera.looking_at_origin(0, 0, 2, size_px=(8, 6), fov_deg=90), cx_px=5.0)
    cam_from_world, intrinsics = to_opencv(camera)
    np.testing.assert_allclose(cam_from_world, [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 2], [0, 0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(intrinsics, [[4, 0, 5], [0, 4, 3], [0, 0, 1]], atol=1e-12)
    quaternion_wxyz, translation = to_colmap(camera)
    np.testing.assert_allclose(quaternion_wxyz, [sqrt(0.5), sqrt(0.5), 0, 0], atol=1e-12)  # +90 degrees about X
    np.testing.assert_allclose(translation, [0, 0, 2], atol=1e-12)


@given(any_cameras(), st.tuples(*[st.floats(-1, 1)] * 3))
def test_opencv_matrices_project_as_the_camera_does(camera, point):
    cam_from_world, intrinsics = to_opencv(camera)
    in_cam = (cam_from_world @ [*point, 1])[:3]
    pixel, depth = camera.project(point)
    assert in_cam[2] == pytest.approx(depth, abs=1e-9)
    np.testing.assert_allclose((intrinsics @ in_cam)[:2], pixel * depth, atol=1e-6)


def test_pytorch3d_camera_of_the_view_from_the_right():
    """From +X, the camera's left is -Y, its up +Z, its forward -X; row vectors: x_cam = x_world @ R + T."""
    rotation, translation = to_pytorch3d(Camera.looking_at_origin(90, 0, 3, size_px=8))
    np.testing.assert_allclose(np.array([0.0, -1, 0]) @ rotation, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(np.array([0.0, 0, 1]) @ rotation, [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(np.array([-1.0, 0, 0]) @ rotation, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(translation, [0, 0, 3], atol=1e-12)


def test_blender_settings_of_an_off_centre_camera():
    """Blender's 50 mm lens on its 36 mm sensor sees 39.6 degrees; shift is in units of the longer side."""
    camera = Camera.looking_at_origin(0, 0, 2, size_px=(200, 100), fov_deg=39.597752)
    settings = to_blender(replace(camera, cx_px=80.0, cy_px=60.0))
    assert settings["lens_mm"] == pytest.approx(50, abs=1e-4)
    assert settings["shift_x"] == pytest.approx(0.1)  # the picture's middle lies right of the axis
    assert settings["shift_y"] == pytest.approx(0.05)  # and above it
    np.testing.assert_allclose(settings["matrix_world"], camera.world_from_cam)


def test_nerfstudio_reads_a_field_of_view_instead_of_a_focal_length():
    """NeRF-synthetic's lego: 800 px and camera_angle_x 0.6911 give the focal length 1111.11 px."""
    frame = {"camera_angle_x": 0.6911112070083618, "w": 800, "h": 800, "transform_matrix": np.eye(4).tolist()}
    camera = from_nerfstudio(frame)
    assert camera.focal_px == pytest.approx(1111.11, abs=0.01)
    assert (camera.cx_px, camera.cy_px) == (400, 400)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"k1": 0.1}, "distortion"),
        ({"camera_model": "OPENCV_FISHEYE"}, "OPENCV_FISHEYE"),
        ({"fl_y": 50.0}, "square"),
        ({"transform_matrix": [[1, 0], [0, 1]]}, "4x4"),
    ],
)
def test_nerfstudio_cameras_that_are_no_pinholes_are_refused(change, problem):
    frame = to_nerfstudio(Camera.looking_at_origin(0, 0, size_px=8))
    with pytest.raises(ValueError, match=problem):
        from_nerfstudio(frame | change)


def test_sv3d_angles_and_order_of_a_small_orbit():
    cameras = static_orbit(4, 30, size_px=8)
    polar_rad, azimuth_rad = to_sv3d(cameras, input_index=1)
    np.testing.assert_allclose(polar_rad, radians(60))
    np.testing.assert_allclose(azimuth_rad, [3 * pi / 2, 0, pi / 2, pi], atol=1e-12)
    assert sv3d_order(4, input_index=1) == [2, 3, 0, 1]


def test_zero123_pose_of_a_quarter_turn_upward():
    source = Camera.looking_at_origin(10, 0, 2, size_px=8)
    target = Camera.looking_at_origin(100, 30, 1.5, size_px=8)
    np.testing.assert_allclose(to_zero123(target, source), [-pi / 6, sin(pi / 2), cos(pi / 2), -0.5], atol=1e-12)


def test_plucker_rays_of_the_front_view():
    rays = to_plucker(Camera.looking_at_origin(0, 0, 2, size_px=1, fov_deg=60))
    np.testing.assert_allclose(rays, [[[0, 1, 0, 0, 0, 0]]], atol=1e-12)  # through the origin: no moment
    left = to_plucker(Camera.looking_at_origin(0, 0, 2, size_px=2, fov_deg=60))[0, 0]
    slope = tan(radians(30)) / 2
    expected = np.array([-slope, 1, slope]) / sqrt(1 + 2 * slope**2)
    np.testing.assert_allclose(left[:3], expected, atol=1e-12)
    np.testing.assert_allclose(left[3:], np.cross([0, -2, 0], expected), atol=1e-12)

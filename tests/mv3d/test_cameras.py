"""The camera and the orbits made of it."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mv3d.cameras import Camera, dynamic_path, sine_orbit, static_orbit
from tests.strategies import any_cameras, assert_same, spherical_cameras

# -------------------------------------------------------------------------------------------------
# The camera itself.


def test_azimuth_0_stands_on_minus_y_and_looks_along_plus_y():
    camera = Camera.looking_at_origin(0, 0, 2, size_px=8)
    np.testing.assert_allclose(camera.position, [0, -2, 0], atol=1e-12)
    np.testing.assert_allclose(camera.directions([4, 4]), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(camera.world_from_cam[:3, 0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(camera.world_from_cam[:3, 1], [0, 0, 1], atol=1e-12)


def test_azimuth_90_stands_on_plus_x_and_elevation_90_would_be_above():
    np.testing.assert_allclose(Camera.looking_at_origin(90, 0, 2, size_px=8).position, [2, 0, 0], atol=1e-12)
    raised = Camera.looking_at_origin(0, 60, 2, size_px=8)
    np.testing.assert_allclose(raised.position, [0, -1, sqrt(3)], atol=1e-12)


def test_pixels_grow_right_and_down_from_the_upper_left_corner():
    camera = Camera.looking_at_origin(0, 0, 2, size_px=(8, 6), fov_deg=90)
    assert camera.focal_px == pytest.approx(4)
    pixels, depths = camera.project([[0, 0, 0], [0.5, 0, 0], [0, 0, 0.5]])
    np.testing.assert_allclose(pixels, [[4, 3], [5, 3], [4, 2]], atol=1e-12)
    np.testing.assert_allclose(depths, 2)
    np.testing.assert_allclose(camera.pixel_grid()[0, 0], [0.5, 0.5])
    assert camera.pixel_grid(per_side=3).shape == (18, 24, 2)


@given(spherical_cameras())
def test_spherical_position_is_read_back(camera):
    again = Camera.looking_at_origin(
        camera.azimuth_deg,
        camera.elevation_deg,
        camera.radius,
        size_px=(camera.width_px, camera.height_px),
        fov_deg=camera.fov_deg,
    )
    assert 0 <= camera.azimuth_deg < 360
    assert_same(again, camera, atol=1e-7)


@given(any_cameras(), st.floats(0.1, 20), st.data())
def test_projecting_a_ray_gives_its_pixel_back(camera, distance, data):
    x, y = data.draw(st.floats(0, camera.width_px)), data.draw(st.floats(0, camera.height_px))
    direction = camera.directions([x, y])
    assert np.linalg.norm(direction) == pytest.approx(1)
    pixel, depth = camera.project(camera.position + distance * direction)
    np.testing.assert_allclose(pixel, [x, y], atol=1e-6)
    assert 0 < depth <= distance * (1 + 1e-9)


@given(any_cameras())
def test_inverse_transform(camera):
    np.testing.assert_allclose(camera.cam_from_world @ camera.world_from_cam, np.eye(4), atol=1e-12)


@given(spherical_cameras(), st.floats(-400, 400))
def test_turning_adds_to_the_azimuth_only(camera, angle_deg):
    turned = camera.turned(angle_deg)
    difference = (turned.azimuth_deg - camera.azimuth_deg - angle_deg + 180) % 360 - 180
    assert difference == pytest.approx(0, abs=1e-6)
    assert turned.elevation_deg == pytest.approx(camera.elevation_deg, abs=1e-6)


def test_resizing_keeps_the_field_of_view_and_refuses_another_aspect():
    camera = replace(Camera.looking_at_origin(20, 10, size_px=(64, 48)), cx_px=30.0, cy_px=20.0)
    small = camera.resized(32, 24)
    assert small.fov_deg == pytest.approx(camera.fov_deg)
    assert (small.cx_px, small.cy_px) == (15, 10)
    with pytest.raises(ValueError, match="aspect"):
        camera.resized(32, 32)


@pytest.mark.parametrize(
    ("matrix", "focal_px", "problem"),
    [
        (np.full((4, 4), np.nan), 10.0, "finite"),
        (np.eye(3), 10.0, "4x4"),
        (np.diag([2.0, 2.0, 2.0, 1.0]), 10.0, "rotation"),
        (np.diag([-1.0, 1.0, 1.0, 1.0]), 10.0, "mirror"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), 10.0, "last row"),
        (np.eye(4), -1.0, "positive"),
        (np.eye(4), float("inf"), "finite"),
    ],
)
def test_impossible_cameras_are_refused(matrix, focal_px, problem):
    with pytest.raises(ValueError, match=problem):
        Camera(matrix, focal_px, 8, 8, 4, 4)


def test_elevation_at_the_pole_is_refused():
    with pytest.raises(ValueError, match=r"90 is outside \+-89"):
        Camera.looking_at_origin(0, 90, size_px=8)


# -------------------------------------------------------------------------------------------------
# Orbits.


def test_static_orbit_closes_without_repeating_the_first_view():
    cameras = static_orbit(21, 10, 2.5, size_px=16)
    np.testing.assert_allclose([c.azimuth_deg for c in cameras], 360 / 21 * np.arange(21), atol=1e-9)
    np.testing.assert_allclose([c.elevation_deg for c in cameras], 10)
    np.testing.assert_allclose([c.radius for c in cameras], 2.5)


def test_sine_orbit_swings_around_its_elevation():
    elevations = [c.elevation_deg for c in sine_orbit(8, 5, 30, periods=2, size_px=16)]
    np.testing.assert_allclose(elevations, [5, 35, 5, -25] * 2, atol=1e-9)


def test_empty_orbits_are_refused():
    with pytest.raises(ValueError, match="at least"):
        static_orbit(0, 0, size_px=8)


@pytest.mark.parametrize("per_side", [1, 3])
def test_sample_rays_are_the_rays_through_the_pixel_grid(per_side: int) -> None:
    camera = replace(Camera.looking_at_origin(70, -20, 3, size_px=(9, 7)), cx_px=3.3)
    columns, rows = camera.sample_rays(per_side)
    rays = rows[:, None] + columns[None, :]
    unit = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit, camera.directions(camera.pixel_grid(per_side)), atol=1e-12)
    np.testing.assert_allclose(rays @ camera.cam_from_world[2, :3], -1, atol=1e-12)


def test_dynamic_paths_begin_at_the_picture_and_swing_around_it():
    azimuths, elevations = dynamic_path(np.random.default_rng(3), 21, 12.0)
    assert azimuths[0] == 0
    assert elevations[0] == pytest.approx(12)
    steps = np.diff(np.append(azimuths, 360.0))
    assert steps.min() > 0
    assert steps.std() > 0.1
    assert 0.5 < np.ptp(elevations) < 2 * 5 * 10 / 5
    # Smooth and closed: at most the sum of the sinusoids' steepest slopes from one view to the next.
    most_deg = sum(10 / 5 * 2 * np.pi * periods / 21 for periods in range(1, 6))
    assert np.abs(np.diff(np.append(elevations, elevations[0]))).max() < most_deg
    again = dynamic_path(np.random.default_rng(3), 21, 12.0)
    np.testing.assert_array_equal(again, (azimuths, elevations))


def test_dynamic_paths_stay_off_the_pole():
    assert dynamic_path(np.random.default_rng(0), 21, 88.0)[1].max() == 89

from __future__ import annotations

import numpy as np
import pytest

from mv3d.errors import Mv3dError
from render.camera_paths import MOTIONS, draw_cameras
from render.settings import Settings


@pytest.mark.parametrize("seed", range(5))
def test_dynamic_orbits_go_around_once_and_swing_smoothly_within_bounds(seed: int) -> None:
    settings = Settings(num_views=84, path="dynamic", elevation_low_deg=-10, elevation_high_deg=40)
    cameras = draw_cameras(settings, np.random.default_rng(seed), 12.0, 2.5)
    azimuths, elevations = (np.array([getattr(c, key) for c in cameras]) for key in ("azimuth_deg", "elevation_deg"))
    assert azimuths[0] == pytest.approx(0, abs=1e-9)
    assert elevations[0] == pytest.approx(12)
    steps = np.diff(azimuths)
    assert (steps > 0).all()
    assert steps.std() > 0.1
    assert np.abs(np.diff(np.append(elevations, elevations[0]))).max() < 25 * 2 * np.pi * 3 / 84  # closes, no jumps
    assert np.ptp(elevations) > 1
    assert np.abs(elevations - 12).max() <= 2 * 25
    np.testing.assert_allclose([c.radius for c in cameras], 2.5)


def test_random_views_spread_evenly_over_their_band_of_the_sphere() -> None:
    settings = Settings(num_views=1000, path="random", elevation_low_deg=-20, elevation_high_deg=60)
    cameras = draw_cameras(settings, np.random.default_rng(0), 5.0, 2.0)
    assert cameras[0].azimuth_deg == pytest.approx(0, abs=1e-9)
    elevations = np.array([camera.elevation_deg for camera in cameras[1:]])
    assert -20 <= elevations.min() < -18
    assert 57 < elevations.max() <= 60
    heights = np.sin(np.radians(elevations))
    assert heights.mean() == pytest.approx((np.sin(np.radians(-20)) + np.sin(np.radians(60))) / 2, abs=0.03)


def test_settings_that_do_not_go_together_are_refused() -> None:
    for wrong in (
        {"passes": ("smell",)},
        {"environments": "skies"},
        {"environments": "skies", "renderer": "cycles"},
        {"samples": 0},
    ):
        with pytest.raises(Mv3dError):
            Settings(**wrong)


def clip(path: str, seed: int = 0):
    settings = Settings(num_views=8, size_px=64, path=path)
    return draw_cameras(settings, np.random.default_rng(seed), 12.0, 2.5)


def test_a_moving_camera_moves_what_it_sees() -> None:
    """By its effect: where the object is in the picture, how large, which of its sides is nearer."""
    cameras = {path: clip(path) for path in MOTIONS}
    middles = {path: np.array([c.project(np.zeros(3))[0] for c in found]) for path, found in cameras.items()}
    for path, found in cameras.items():
        assert found[0].azimuth_deg == pytest.approx(0, abs=1e-9)
        assert all(c.position == pytest.approx(found[0].position) for c in found) or path.startswith("orbit")
        if not path.startswith("pan"):
            np.testing.assert_allclose(middles[path], 32, atol=1e-9)
    assert (np.diff(middles["pan-left"][:, 0]) > 1).all()  # the camera looks to the left, so the object moves right
    assert (np.diff(middles["pan-right"][:, 0]) < -1).all()
    left = np.array([-0.5, 0.0, 0.0])  # in front of the first camera, on its left

    def nearness(path: str) -> np.ndarray:
        return np.array([-c.project(left)[1] for c in cameras[path]])

    assert (np.diff(nearness("orbit-left")) > 0).all()
    assert (np.diff(nearness("orbit-right")) < 0).all()
    spreads = {path: [float(c.project([0, 0, 0.1])[0][1]) for c in found] for path, found in cameras.items()}
    assert (np.diff(spreads["zoom-in"]) < 0).all()  # up, away from the middle
    assert (np.diff(spreads["zoom-out"]) > 0).all()
    assert cameras["zoom-in"][-1].focal_px / cameras["zoom-in"][0].focal_px == pytest.approx(1.5)
    assert cameras["still"][7].world_from_cam == pytest.approx(cameras["still"][0].world_from_cam)


def test_mixed_clips_hold_every_motion_and_none_and_no_more_than_the_farthest() -> None:
    ends = [clip("mixed", seed)[-1] for seed in range(200)]
    first = clip("mixed")[0]
    turns = np.array([(end.azimuth_deg + 180) % 360 - 180 for end in ends])
    zooms = np.array([end.focal_px / first.focal_px for end in ends])
    shifts = np.array([end.project(np.zeros(3))[0][0] - 32 for end in ends])
    assert -60 <= turns.min() < -40 < 40 < turns.max() <= 60
    assert 1 / 1.5 <= zooms.min() < 0.8 < 1.25 < zooms.max() <= 1.5
    still = [np.abs(turns) < 1e-6, zooms == 1, np.abs(shifts) < 1e-6]
    assert all(0.4 < share.mean() < 0.6 for share in still)
    assert 0.05 < np.logical_and.reduce(still).mean() < 0.25

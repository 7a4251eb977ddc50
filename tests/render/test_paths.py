from __future__ import annotations

import numpy as np
import pytest

from mv3d.errors import Mv3dError
from render.paths import draw_cameras
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

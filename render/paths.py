"""Ways around an object that are drawn from a seed: what `Settings.path` names."""

from __future__ import annotations

from math import pi

import numpy as np

from mv3d.cameras import Camera, orbit_through
from render.settings import Settings

_SINUSOIDS = 3
_SHAKE = 0.25  # of the distance between neighbouring views
_STEEPEST_DEG = 80.0


def draw_cameras(
    settings: Settings, rng: np.random.Generator, elevation_deg: float, radius: float
) -> tuple[Camera, ...]:
    """The cameras of one orbit.

    ``static``: evenly spaced at one elevation. ``dynamic`` (SV3D, section 3 and appendix): azimuths are shaken, and the
    elevation swings by a sum of sinusoids that closes after one turn. ``random``: anywhere in the range of elevations,
    evenly spread over the sphere. The first view stands at azimuth 0 in all.
    """
    count = settings.num_views
    turns = np.arange(count) / count
    azimuths, elevations = 360 * turns, np.full(count, elevation_deg)
    low, high = settings.elevation_low_deg, settings.elevation_high_deg
    if settings.path == "dynamic":
        azimuths[1:] += rng.uniform(-_SHAKE, _SHAKE, count - 1) * 360 / count
        weights, phases = rng.dirichlet(np.ones(_SINUSOIDS)), rng.uniform(0, 2 * pi, _SINUSOIDS)
        waves = np.sin(2 * pi * np.arange(1, _SINUSOIDS + 1)[:, None] * turns + phases[:, None])
        swing = weights @ waves * (high - low) / 2
        elevations = np.clip(elevation_deg + swing - swing[0], -_STEEPEST_DEG, _STEEPEST_DEG)
    elif settings.path == "random":
        azimuths[1:] = rng.uniform(0, 360, count - 1)
        heights = rng.uniform(np.sin(np.radians(low)), np.sin(np.radians(high)), count - 1)
        elevations[1:] = np.degrees(np.arcsin(heights))
    return orbit_through(azimuths, elevations, radius, size_px=settings.size_px, fov_deg=settings.fov_deg)

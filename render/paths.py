"""Which way around an object an orbit takes: what `Settings.path` names."""

from __future__ import annotations

import numpy as np

from mv3d.cameras import Camera, dynamic_path, orbit_through, random_path, static_orbit
from render.settings import Settings


def draw_cameras(
    settings: Settings, rng: np.random.Generator, elevation_deg: float, radius: float
) -> tuple[Camera, ...]:
    """The cameras of one orbit; the first stands at azimuth 0 and ``elevation_deg``.

    ``static``: evenly spaced at one elevation. ``dynamic``: as SV3D moves it. ``random``: anywhere in the range of
    elevations.
    """
    size = {"size_px": settings.size_px, "fov_deg": settings.fov_deg}
    if settings.path == "static":
        return static_orbit(settings.num_views, elevation_deg, radius, **size)
    if settings.path == "dynamic":
        path = dynamic_path(rng, settings.num_views, elevation_deg)
    else:
        low_deg, high_deg = settings.elevation_low_deg, settings.elevation_high_deg
        path = random_path(rng, settings.num_views, elevation_deg, low_deg, high_deg)
    return orbit_through(*path, radius, **size)

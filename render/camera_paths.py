"""Which way the camera takes: around an object, or, in a clip, a little way past it. What `Settings.path` names."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mv3d.cameras import Camera, dynamic_path, orbit_through, random_path, static_orbit
from render.settings import Settings


@dataclass(frozen=True)
class Motion:
    """What a clip's last camera has that its first has not; in between it grows evenly."""

    azimuth_deg: float = 0.0
    """Around the object."""
    pan_deg: float = 0.0
    """About the camera's own up axis, to its left."""
    zoom: float = 1.0
    """Factor of the focal length."""

    def moved(self, camera: Camera, share: float) -> Camera:
        """What became of the first camera after a share of the motion."""
        turned = camera.turned(self.azimuth_deg * share).panned(self.pan_deg * share)
        return replace(turned, focal_px=turned.focal_px * self.zoom**share)


FARTHEST = Motion(azimuth_deg=60.0, pan_deg=10.0, zoom=1.5)
MOTIONS: dict[str, Motion] = {
    "still": Motion(),
    "orbit-left": Motion(azimuth_deg=-FARTHEST.azimuth_deg),
    "orbit-right": Motion(azimuth_deg=FARTHEST.azimuth_deg),
    "pan-left": Motion(pan_deg=FARTHEST.pan_deg),
    "pan-right": Motion(pan_deg=-FARTHEST.pan_deg),
    "zoom-in": Motion(zoom=FARTHEST.zoom),
    "zoom-out": Motion(zoom=1 / FARTHEST.zoom),
}
"""What a clip can be of alone, as for the camera LoRAs of SVD (Blattmann et al. 2023, section 4.3)."""


def draw_cameras(
    settings: Settings, rng: np.random.Generator, elevation_deg: float, radius: float
) -> tuple[Camera, ...]:
    """The cameras of one orbit; the first stands at azimuth 0 and ``elevation_deg``.

    ``static``: evenly spaced, or at the azimuths asked for, at one elevation. ``dynamic``: as SV3D moves it.
    ``random``: anywhere in the range of elevations. The others are clips: one of `MOTIONS`, or, ``mixed``, each of its
    parts by any amount up to `FARTHEST`.
    """
    size = {"size_px": settings.size_px, "fov_deg": settings.fov_deg}
    if settings.azimuths_deg is not None:
        return orbit_through(settings.azimuths_deg, [elevation_deg] * settings.num_views, radius, **size)
    if settings.path == "static":
        return static_orbit(settings.num_views, elevation_deg, radius, **size)
    if settings.path == "dynamic":
        return orbit_through(*dynamic_path(rng, settings.num_views, elevation_deg), radius, **size)
    if settings.path == "random":
        low_deg, high_deg = settings.elevation_low_deg, settings.elevation_high_deg
        path = random_path(rng, settings.num_views, elevation_deg, low_deg, high_deg)
        return orbit_through(*path, radius, **size)
    motion = _draw_motion(rng) if settings.path == "mixed" else MOTIONS[settings.path]
    first = Camera.looking_at_origin(0.0, elevation_deg, radius, **size)
    return tuple(motion.moved(first, share) for share in np.linspace(0, 1, settings.num_views).tolist())


def _draw_motion(rng: np.random.Generator) -> Motion:
    """Any of the three parts, or several, or none: each moves in half of the clips."""
    moves, amounts = rng.random(3) < 0.5, rng.uniform(-1, 1, 3)
    azimuth, pan, zoom = np.where(moves, amounts, 0.0).tolist()
    return Motion(azimuth * FARTHEST.azimuth_deg, pan * FARTHEST.pan_deg, FARTHEST.zoom**zoom)

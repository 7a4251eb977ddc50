"""Cameras that move: named paths around a picture's object, and ways through key-frames.

All begin at the picture's own camera, unless key-frames say otherwise, and the named ones end where they began, so that
their videos loop: the last view stands one step before the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import isclose, radians, sin
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mv3d.cameras import DEFAULT_FOV_DEG, DEFAULT_RADIUS, STEEPEST_DEG, Camera, sine_orbit
from mv3d.errors import Mv3dError

PathName = Literal["turn", "swing", "spiral", "top", "zoom", "dolly"]

OBJECT_RADIUS = DEFAULT_RADIUS * sin(radians(DEFAULT_FOV_DEG / 2))
"""Of the sphere that just fits a picture's frame, in which an object is, in the world's units."""

_SWING_DEG = 30.0  # to either side
_SWING_RISE = 0.2  # of it, up and down meanwhile
_SPIRAL_TOP_DEG, _TOP_DEG = 60.0, 78.0
_ZOOM = 2.0  # times larger at the most
_NEAREST = 1.4  # of a dolly, world units
_LIMITS = {
    "azimuth": (-36_000.0, 36_000.0),
    "elevation": (-STEEPEST_DEG, STEEPEST_DEG),
    "distance": (round(1.2 * OBJECT_RADIUS, 2), 20.0),
    "lens": (5.0, 120.0),
    "seconds": (0.0, 3600.0),
}


@dataclass(frozen=True)
class KeyFrame:
    """Where a camera that looks at the object stands at a time; azimuths count on beyond 360 degrees."""

    azimuth_deg: float = 0.0
    elevation_deg: float = 0.0
    distance: float = DEFAULT_RADIUS
    """From the world's origin, in its units."""
    fov_deg: float = DEFAULT_FOV_DEG
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for (name, (low, high)), value in zip(_LIMITS.items(), astuple(self), strict=True):
            if not low <= value <= high:
                raise Mv3dError(f"a key-frame's {name} of {value:g} is outside {low:g} to {high:g}")

    def is_like(self, other: KeyFrame) -> bool:
        """Whether both show the same."""
        turned = (self.azimuth_deg - other.azimuth_deg) % 360
        mine, others = astuple(self)[1:4], astuple(other)[1:4]
        return min(turned, 360 - turned) < 1e-6 and all(map(isclose, mine, others))


def named_path(
    name: PathName, num_views: int, elevation_deg: float, swing_deg: float | None = None
) -> tuple[Camera, ...]:
    """The cameras of a path, with square pictures of one pixel, which `Camera.resized` enlarges.

    * turn: once around; rises and sinks by ``swing_deg`` meanwhile, by a sine.
    * swing: to one side and the other, ``swing_deg`` (30) each, in a lying eight.
    * spiral: two turns, up to 60 degrees and down again.
    * top: up, once around looking down, and down again.
    * zoom: the lens narrows until all is twice as large, and widens again.
    * dolly: the camera goes near, with the same lens, and back.

    Args:
        name: of the path.
        num_views: at least 1.
        elevation_deg: of the picture's camera.
        swing_deg: for the first two.

    Raises:
        Mv3dError: if it is steeper than cameras can be.
    """
    turns = np.arange(num_views) / num_views
    to_and_fro = (1 - np.cos(2 * np.pi * turns)) / 2
    still = np.full(num_views, elevation_deg)
    if name == "turn":
        return sine_orbit(num_views, elevation_deg, swing_deg or 0.0, size_px=1)
    if name == "swing":
        swing_deg = _SWING_DEG if swing_deg is None else swing_deg
        rise = swing_deg * _SWING_RISE * np.sin(4 * np.pi * turns)
        return _cameras(swing_deg * np.sin(2 * np.pi * turns), elevation_deg + rise)
    if name == "spiral":
        return _cameras(720 * turns, elevation_deg + (_SPIRAL_TOP_DEG - elevation_deg) * to_and_fro)
    if name == "top":
        keys = [(0, elevation_deg), (60, _TOP_DEG), (300, _TOP_DEG), (360, elevation_deg)]
        return key_frame_path(
            [KeyFrame(*key, seconds=s) for key, s in zip(keys, (0, 3, 7, 10), strict=True)], num_views
        )
    if name == "zoom":
        wide = np.tan(np.radians(DEFAULT_FOV_DEG) / 2)
        return _cameras(0 * turns, still, fovs_deg=np.degrees(2 * np.arctan(wide * _ZOOM**-to_and_fro)))
    return _cameras(0 * turns, still, DEFAULT_RADIUS + (_NEAREST - DEFAULT_RADIUS) * to_and_fro)


def key_frame_path(keys: Sequence[KeyFrame], num_views: int) -> tuple[Camera, ...]:
    """A smooth way through key-frames, as cameras with pictures of one pixel, evenly spaced in time.

    Between keys everything runs monotonously (PCHIP; Fritsch and Butland 1984), so nothing overshoots. If the last key
    shows the same as the first, the path is closed: it runs through that place smoothly, and does not repeat its view.

    Raises:
        Mv3dError: if there are less than two keys, or times that do not increase.
    """
    from scipy.interpolate import PchipInterpolator  # imports much

    if len(keys) < 2:
        raise Mv3dError(f"a path needs 2 key-frames or more, and has {len(keys)}")
    table = np.array([astuple(key) for key in keys])
    times = table[:, -1]
    for k in np.flatnonzero(np.diff(times) <= 0)[:1]:
        raise Mv3dError(f"key-frame {k + 2} is at {times[k + 1]:g} seconds, and the one before at {times[k]:g}")
    closed = is_closed(keys)
    if closed:  # the keys beside the ends, once more beyond them
        lap = table[-1] - table[0]
        table = np.concatenate([table[-3:-1] - lap, table, table[1:3] + lap])
    when = times[0] + (times[-1] - times[0]) * _shares(num_views, closed)
    azimuths, elevations, distances, fovs_deg = (
        PchipInterpolator(table[:, -1], table[:, column])(when) for column in range(4)
    )
    return _cameras(azimuths, elevations, distances, fovs_deg)


def is_closed(keys: Sequence[KeyFrame]) -> bool:
    """Whether a path ends where it began: two like keys alone are no path, unless a turn lies between them."""
    moves = len(keys) > 2 or keys[-1].azimuth_deg != keys[0].azimuth_deg
    return moves and keys[-1].is_like(keys[0])


def views_in(keys: Sequence[KeyFrame], frames_per_second: float) -> int:
    """How many views show key-frames in their own time."""
    steps = round((keys[-1].seconds - keys[0].seconds) * frames_per_second)
    return max(1, steps if is_closed(keys) else steps + 1)


def _shares(num_views: int, closed: bool) -> NDArray[np.float64]:
    return np.arange(num_views) / num_views if closed else np.linspace(0, 1, num_views)


def _cameras(
    azimuths_deg: NDArray[np.float64],
    elevations_deg: NDArray[np.float64],
    distances: NDArray[np.float64] | float = DEFAULT_RADIUS,
    fovs_deg: NDArray[np.float64] | float = DEFAULT_FOV_DEG,
) -> tuple[Camera, ...]:
    steepest = np.abs(elevations_deg).max()
    if steepest > STEEPEST_DEG:
        raise Mv3dError(f"the path's steepest elevation is {steepest:g} degrees, over {STEEPEST_DEG:g}")
    places = np.broadcast_arrays(azimuths_deg, elevations_deg, distances, fovs_deg)
    return tuple(
        Camera.looking_at_origin(azimuth, elevation, distance, size_px=1, fov_deg=fov_deg)
        for azimuth, elevation, distance, fov_deg in zip(*(place.tolist() for place in places), strict=True)
    )

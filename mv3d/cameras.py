"""The one camera type of the project and the orbits made of it.

Vocabulary and conventions used by the whole project:

* World: right-handed, Z up, object at the origin. The picture's camera stands on -Y at azimuth 0.
* Camera axes are OpenGL's: +X right, +Y up, +Z backward. Matrices name their direction: ``world_from_cam``.
* Azimuth grows counter-clockwise seen from above; elevation is absolute, degrees above the horizon.
* Pixels: origin at the picture's upper left corner, centres at +0.5, ``cx cy`` measured from that corner.

Other systems' axes, zero points and units are met only in `mv3d.conventions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import atan, atan2, cos, degrees, hypot, pi, radians, sin, tan

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

DEFAULT_FOV_DEG = 33.8  # SV3D, appendix B
DEFAULT_RADIUS = 2.2  # a median object of largest extent 1 fills the frame of the default field of view
_EXACT = 1e-9  # what rounding leaves, in degrees, pixels and parts of the radius
STEEPEST_DEG = 89.0
"""Of upright cameras: at the pole "up" is undefined; SV3D clamps here too."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with square pixels.

    ``world_from_cam`` is (4, 4), a rigid transform with OpenGL axes; lengths are in pixels of the picture.
    """

    world_from_cam: Float64[np.ndarray, "4 4"]
    focal_px: float
    width_px: int
    height_px: int
    cx_px: float
    cy_px: float

    def __post_init__(self) -> None:
        matrix = np.asarray(self.world_from_cam, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
            raise ValueError(f"world_from_cam must be a finite 4x4 matrix with last row 0 0 0 1, got {matrix.tolist()}")
        rotation = matrix[:3, :3]
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4) or np.linalg.det(rotation) < 0:
            raise ValueError("world_from_cam must hold a rotation (no scale, no mirror)")
        if not (self.focal_px > 0 and self.width_px > 0 and self.height_px > 0):
            raise ValueError(f"focal and size must be positive: {self.focal_px}, {self.width_px}x{self.height_px}")
        if not np.isfinite([self.focal_px, self.cx_px, self.cy_px]).all():
            raise ValueError(f"intrinsics must be finite: {self.focal_px}, {self.cx_px}, {self.cy_px}")
        matrix = matrix.copy()
        matrix.flags.writeable = False
        object.__setattr__(self, "world_from_cam", matrix)

    @classmethod
    def looking_at_origin(
        cls,
        azimuth_deg: float,
        elevation_deg: float,
        radius: float = DEFAULT_RADIUS,
        *,
        size_px: int | tuple[int, int],
        fov_deg: float = DEFAULT_FOV_DEG,
    ) -> Camera:
        """Make the upright camera on a sphere around the origin; ``fov_deg`` spans the picture's longer side."""
        if abs(elevation_deg) > STEEPEST_DEG:
            raise ValueError(f"elevation {elevation_deg} is outside +-{STEEPEST_DEG} degrees")
        if not (radius > 0 and 0 < fov_deg < 180):
            raise ValueError(f"radius {radius} and field of view {fov_deg} must be positive (and under 180)")
        azimuth, elevation = radians(azimuth_deg), radians(elevation_deg)
        backward = np.array([cos(elevation) * sin(azimuth), -cos(elevation) * cos(azimuth), sin(elevation)])
        right = np.array([cos(azimuth), sin(azimuth), 0.0])
        world_from_cam = np.eye(4)
        world_from_cam[:3, :3] = np.stack([right, np.cross(backward, right), backward], axis=1)
        world_from_cam[:3, 3] = radius * backward
        width_px, height_px = (size_px, size_px) if isinstance(size_px, int) else size_px
        focal_px = max(width_px, height_px) / (2 * tan(radians(fov_deg) / 2))
        return cls(world_from_cam, focal_px, width_px, height_px, width_px / 2, height_px / 2)

    @cached_property
    def cam_from_world(self) -> Float64[np.ndarray, "4 4"]:
        """The inverse rigid transform, (4, 4)."""
        inverse = np.eye(4)
        inverse[:3, :3] = self.world_from_cam[:3, :3].T
        inverse[:3, 3] = -self.world_from_cam[:3, :3].T @ self.world_from_cam[:3, 3]
        return inverse

    @property
    def position(self) -> Float64[np.ndarray, " 3"]:
        """The camera's centre in the world, (3,)."""
        return self.world_from_cam[:3, 3]

    @property
    def radius(self) -> float:
        """Distance from the world's origin."""
        return float(np.linalg.norm(self.position))

    @property
    def azimuth_deg(self) -> float:
        """Azimuth of the camera's position in [0, 360)."""
        x, y, _ = self.position
        # The outer modulo maps 360.0, which a tiny negative angle rounds to, back to 0.
        return degrees(atan2(x, -y)) % 360.0 % 360.0

    @property
    def elevation_deg(self) -> float:
        """Elevation of the camera's position above the horizon."""
        x, y, z = self.position
        return degrees(atan2(z, hypot(x, y)))

    @property
    def fov_deg(self) -> float:
        """Field of view over the picture's longer side."""
        return degrees(2 * atan(max(self.width_px, self.height_px) / (2 * self.focal_px)))

    def turned(self, azimuth_deg: float) -> Camera:
        """Turn the camera about the world's Z axis (counter-clockwise seen from above)."""
        world_from_old = np.eye(4)
        world_from_old[:3, :3] = Rotation.from_euler("z", azimuth_deg, degrees=True).as_matrix()
        return replace(self, world_from_cam=world_from_old @ self.world_from_cam)

    def panned(self, left_deg: float) -> Camera:
        """Turn the camera where it stands, about its own up axis, to its left."""
        old_from_new = np.eye(4)
        old_from_new[:3, :3] = Rotation.from_euler("y", left_deg, degrees=True).as_matrix()
        return replace(self, world_from_cam=self.world_from_cam @ old_from_new)

    def mirrored(self) -> Camera:
        """The camera of the picture mirrored left to right, in the world mirrored in its X."""
        mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
        return replace(self, world_from_cam=mirror @ self.world_from_cam @ mirror, cx_px=self.width_px - self.cx_px)

    def resized(self, width_px: int, height_px: int) -> Camera:
        """Describe the same view resampled to another size of the same aspect ratio."""
        scale = width_px / self.width_px
        if abs(height_px / self.height_px - scale) > 1e-6 + 1 / self.height_px:
            raise ValueError(f"{width_px}x{height_px} has another aspect than {self.width_px}x{self.height_px}")
        return replace(
            self,
            focal_px=self.focal_px * scale,
            width_px=width_px,
            height_px=height_px,
            cx_px=self.cx_px * scale,
            cy_px=self.cy_px * scale,
        )

    def project(self, points: ArrayLike) -> tuple[Float64[np.ndarray, "... 2"], Array]:
        """Project world points (..., 3) to pixels (..., 2) and depths (...) along the viewing axis."""
        in_cam = np.asarray(points) @ self.cam_from_world[:3, :3].T + self.cam_from_world[:3, 3]
        depth = -in_cam[..., 2]
        x = self.cx_px + self.focal_px * in_cam[..., 0] / depth
        y = self.cy_px - self.focal_px * in_cam[..., 1] / depth
        return np.stack([x, y], axis=-1), depth

    def directions(self, pixels: ArrayLike) -> Float64[np.ndarray, "... 3"]:
        """Unit directions in the world of the rays through pixel positions (..., 2)."""
        pixels = np.asarray(pixels, dtype=np.float64)
        x = (pixels[..., 0] - self.cx_px) / self.focal_px
        y = (self.cy_px - pixels[..., 1]) / self.focal_px
        in_cam = np.stack([x, y, -np.ones_like(x)], axis=-1)
        in_cam /= np.linalg.norm(in_cam, axis=-1, keepdims=True)
        return in_cam @ self.world_from_cam[:3, :3].T

    def pixel_grid(self, per_side: int = 1) -> Float64[np.ndarray, "rows columns 2"]:
        """Sample positions in pixels, (height * per_side, width * per_side, 2): the centres for ``per_side`` 1."""
        x = (np.arange(self.width_px * per_side) + 0.5) / per_side
        y = (np.arange(self.height_px * per_side) + 0.5) / per_side
        return np.stack(np.meshgrid(x, y), axis=-1)

    def sample_rays(self, per_side: int = 1) -> tuple[Float64[np.ndarray, "columns 3"], Float64[np.ndarray, "rows 3"]]:
        """Directions in the world through `pixel_grid`, split into parts (columns, 3) and (rows, 3) that add up.

        The ray through row r and column c is ``columns[c] + rows[r]``, and 1 long along the viewing axis, so that a
        distance measured in it is a depth.
        """
        right, up, backward = self.world_from_cam[:3, :3].T
        x = (np.arange(self.width_px * per_side) + 0.5) / per_side
        y = (np.arange(self.height_px * per_side) + 0.5) / per_side
        columns = (x - self.cx_px)[:, None] / self.focal_px * right - backward
        return columns, (self.cy_px - y)[:, None] / self.focal_px * up


# -------------------------------------------------------------------------------------------------
# Orbits: sequences of cameras. N views stand 360/N apart; the first is not repeated.


def static_orbit(
    num_views: int,
    elevation_deg: float,
    radius: float = DEFAULT_RADIUS,
    *,
    size_px: int,
    fov_deg: float = DEFAULT_FOV_DEG,
) -> tuple[Camera, ...]:
    """Circle the object at one elevation, starting at azimuth 0."""
    return sine_orbit(num_views, elevation_deg, 0.0, radius=radius, size_px=size_px, fov_deg=fov_deg)


def sine_orbit(
    num_views: int,
    elevation_deg: float,
    amplitude_deg: float,
    *,
    periods: int = 1,
    radius: float = DEFAULT_RADIUS,
    size_px: int,
    fov_deg: float = DEFAULT_FOV_DEG,
) -> tuple[Camera, ...]:
    """Circle the object while the elevation swings by a sine (SV3D, section 4: +-30 degrees for lifting)."""
    turns = _turns(num_views)
    elevations = elevation_deg + amplitude_deg * np.sin(2 * pi * periods * turns)
    return orbit_through(360 * turns, elevations, radius, size_px=size_px, fov_deg=fov_deg)


def dynamic_path(
    rng: np.random.Generator, num_views: int, elevation_deg: float
) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]:
    """Draw a dynamic orbit as SV3D defines it (section 4, sv3d_helpers.py): azimuths and elevations, degrees, (N,).

    Sinusoids of 1 to 5 periods a turn and amplitude 0.5 to 10 degrees with random phases; the first view is the
    picture's own. How strong the azimuths' noise is and how often is smoothed is left open there: here noise is normal
    with an eighth of the step between views, and smoothing a mean of three neighbours on the closed turn.
    """
    turns = _turns(num_views)
    swing = np.zeros(num_views)
    for periods in range(1, 6):
        amplitude_deg, phase = rng.uniform(0.5, 10), rng.uniform(0, 2 * pi)
        swing += amplitude_deg * np.sin(2 * pi * periods * turns + phase) / 5
    swing = (np.roll(swing, 1) + swing + np.roll(swing, -1)) / 3
    noise = rng.normal(0, 360 / num_views / 8, num_views)
    noise[0] = 0
    elevations = np.clip(elevation_deg + swing - swing[0], -STEEPEST_DEG, STEEPEST_DEG)
    return (360 * turns + noise) % 360, elevations


def random_path(
    rng: np.random.Generator, num_views: int, elevation_deg: float, low_deg: float, high_deg: float
) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]:
    """Draw views anywhere between two elevations, evenly over the sphere: azimuths and elevations, degrees, (N,).

    The first view is the picture's own, at azimuth 0 and ``elevation_deg``.
    """
    azimuths, elevations = np.zeros(num_views), np.full(num_views, elevation_deg)
    azimuths[1:] = rng.uniform(0, 360, num_views - 1)
    heights = rng.uniform(sin(radians(low_deg)), sin(radians(high_deg)), num_views - 1)
    elevations[1:] = np.degrees(np.arcsin(heights))
    return azimuths, elevations


def _turns(num_views: int) -> Array:
    if num_views < 1:
        raise ValueError(f"an orbit needs at least one view, got {num_views}")
    return np.arange(num_views) / num_views


def orbit_through(
    azimuths_deg: ArrayLike,
    elevations_deg: ArrayLike,
    radius: float = DEFAULT_RADIUS,
    *,
    size_px: int,
    fov_deg: float = DEFAULT_FOV_DEG,
) -> tuple[Camera, ...]:
    """Look at the origin from the given places, each an azimuth and an elevation, (N,)."""
    places = zip(np.asarray(azimuths_deg).tolist(), np.asarray(elevations_deg).tolist(), strict=True)
    return tuple(
        Camera.looking_at_origin(azimuth, elevation, radius, size_px=size_px, fov_deg=fov_deg)
        for azimuth, elevation in places
    )


def turned_to_front(cameras: Sequence[Camera]) -> tuple[Camera, ...]:
    """Turn cameras about the world's Z axis so that the first stands at azimuth 0."""
    return tuple(_turned_exactly(camera, -cameras[0].azimuth_deg) for camera in cameras)


def _turned_exactly(camera: Camera, azimuth_deg: float) -> Camera:
    """As `Camera.turned`; one that looks upright at the origin is made of its angles, without rests of rounding."""
    right, up, backward = camera.world_from_cam[:3, :3].T
    is_upright = abs(right[2]) < _EXACT and up[2] > 0 and abs(camera.elevation_deg) <= STEEPEST_DEG
    if not is_upright or np.abs(backward * camera.radius - camera.position).max() > _EXACT * camera.radius:
        return camera.turned(azimuth_deg)
    size_px, fov_deg = (camera.width_px, camera.height_px), camera.fov_deg
    fov_deg = DEFAULT_FOV_DEG if abs(fov_deg - DEFAULT_FOV_DEG) < _EXACT else fov_deg
    angles = camera.azimuth_deg + azimuth_deg, camera.elevation_deg
    exact = Camera.looking_at_origin(*angles, camera.radius, size_px=size_px, fov_deg=fov_deg)
    if max(abs(getattr(exact, name) - getattr(camera, name)) for name in ("focal_px", "cx_px", "cy_px")) < _EXACT:
        return exact
    return replace(exact, focal_px=camera.focal_px, cx_px=camera.cx_px, cy_px=camera.cy_px)

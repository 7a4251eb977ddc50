"""Other systems' cameras: every foreign axis, zero point and unit is met here, by a pair ``to_x`` / ``from_x``.

Each pair is inverse to each other (tests/mv3d/test_conventions.py). Ours are told in `mv3d.cameras`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import atan2, cos, degrees, radians, sin, tan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from mv3d.cameras import DEFAULT_RADIUS, Camera

Array = NDArray[np.float64]

# Changes of camera axes, applied on the right of world_from_cam. Each is its own inverse.
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # right, down, forward
_PYTORCH3D_FROM_OPENGL = np.diag([-1.0, 1.0, -1.0, 1.0])  # left, up, forward


def to_opencv(camera: Camera) -> tuple[Array, Array]:
    """OpenCV and COLMAP: ``cam_from_world`` (4, 4) with axes right, down, forward, and the intrinsics (3, 3)."""
    intrinsics = np.array([[camera.focal_px, 0, camera.cx_px], [0, camera.focal_px, camera.cy_px], [0, 0, 1.0]])
    return _OPENCV_FROM_OPENGL @ camera.cam_from_world, intrinsics


def from_opencv(cam_from_world: Array, intrinsics: Array, width_px: int, height_px: int) -> Camera:
    """Invert `to_opencv`. Pixels must be square and unskewed."""
    if not np.isclose(intrinsics[0, 0], intrinsics[1, 1]) or abs(intrinsics[0, 1]) > 1e-9:
        raise ValueError("only square, unskewed pixels are supported")
    world_from_cam = np.linalg.inv(_OPENCV_FROM_OPENGL @ cam_from_world)
    return Camera(
        world_from_cam.astype(np.float64), float(intrinsics[0, 0]), width_px, height_px, *map(float, intrinsics[:2, 2])
    )


def to_colmap(camera: Camera) -> tuple[Array, Array]:
    """COLMAP's images.txt: quaternion (w, x, y, z) and translation of OpenCV's ``cam_from_world``."""
    cam_from_world, _ = to_opencv(camera)
    return Rotation.from_matrix(cam_from_world[:3, :3]).as_quat(scalar_first=True), cam_from_world[:3, 3]


def from_colmap(quaternion_wxyz: ArrayLike, translation: ArrayLike, like: Camera) -> Camera:
    """Invert `to_colmap`; intrinsics and size are taken from ``like``."""
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = Rotation.from_quat(np.asarray(quaternion_wxyz), scalar_first=True).as_matrix()
    cam_from_world[:3, 3] = translation
    return replace(like, world_from_cam=np.linalg.inv(_OPENCV_FROM_OPENGL @ cam_from_world))


def to_nerfstudio(camera: Camera) -> dict:
    """One frame of a transforms.json (nerfstudio, instant-ngp): OpenGL axes, camera to world, pixels."""
    return {
        "fl_x": camera.focal_px,
        "fl_y": camera.focal_px,
        "cx": camera.cx_px,
        "cy": camera.cy_px,
        "w": camera.width_px,
        "h": camera.height_px,
        "transform_matrix": camera.world_from_cam.tolist(),
    }


def from_nerfstudio(frame: dict) -> Camera:
    """Invert `to_nerfstudio`; shared intrinsics must have been merged into the frame.

    As in NeRF-synthetic, ``camera_angle_x`` (radians) may stand for the focal length; ``cx cy`` are then the middle.
    """
    if frame.get("camera_model", "OPENCV") not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE"):
        raise ValueError(f"camera model {frame['camera_model']} is not supported: undistort the pictures first")
    if any(frame.get(key, 0) for key in ("k1", "k2", "k3", "k4", "p1", "p2")):
        raise ValueError("lens distortion is not supported: undistort the pictures first")
    if "fl_x" not in frame and "camera_angle_x" in frame:
        middle = {"cx": frame["w"] / 2, "cy": frame["h"] / 2}
        frame = middle | frame | {"fl_x": frame["w"] / (2 * tan(float(frame["camera_angle_x"]) / 2))}
    missing = [key for key in ("fl_x", "cx", "cy", "w", "h", "transform_matrix") if key not in frame]
    if missing:
        raise ValueError(f"camera without {', '.join(missing)}")
    if not np.isclose(frame["fl_x"], frame.get("fl_y", frame["fl_x"]), rtol=1e-3):
        raise ValueError("only square pixels are supported: fl_x and fl_y differ")
    matrix = np.asarray(frame["transform_matrix"], dtype=np.float64)
    focal_px, cx_px, cy_px = (float(frame[key]) for key in ("fl_x", "cx", "cy"))
    return Camera(matrix, focal_px, int(frame["w"]), int(frame["h"]), cx_px, cy_px)


def to_nerf_synthetic(camera: Camera) -> dict:
    """One frame of NeRF-synthetic: the pose as nerfstudio's, and the horizontal field of view in radians.

    `from_nerfstudio` inverts it.

    Raises:
        ValueError: if the principal point is not the middle, which this format cannot say.
    """
    if not np.allclose([camera.cx_px, camera.cy_px], [camera.width_px / 2, camera.height_px / 2], atol=1e-3):
        raise ValueError(
            f"NeRF-synthetic has its principal point in the middle, not at {camera.cx_px:g}, {camera.cy_px:g}"
        )
    angle = 2 * atan2(camera.width_px / 2, camera.focal_px)
    return {"camera_angle_x": angle, "transform_matrix": camera.world_from_cam.tolist()}


def to_blender(camera: Camera, sensor_mm: float = 36.0) -> dict:
    """Blender: ``matrix_world`` (its axes are ours), lens in mm for sensor_fit AUTO, and the lens shift."""
    longer = max(camera.width_px, camera.height_px)
    return {
        "matrix_world": camera.world_from_cam.tolist(),
        "lens_mm": camera.focal_px * sensor_mm / longer,
        "sensor_mm": sensor_mm,
        "shift_x": (camera.width_px / 2 - camera.cx_px) / longer,
        "shift_y": (camera.cy_px - camera.height_px / 2) / longer,
        "width_px": camera.width_px,
        "height_px": camera.height_px,
    }


def from_blender(settings: dict) -> Camera:
    """Invert `to_blender`."""
    width_px, height_px = settings["width_px"], settings["height_px"]
    longer = max(width_px, height_px)
    return Camera(
        np.asarray(settings["matrix_world"]),
        settings["lens_mm"] * longer / settings["sensor_mm"],
        width_px,
        height_px,
        width_px / 2 - settings["shift_x"] * longer,
        height_px / 2 + settings["shift_y"] * longer,
    )


def to_pytorch3d(camera: Camera) -> tuple[Array, Array]:
    """PyTorch3D: R (3, 3), T (3,) with ``x_cam = x_world @ R + T`` and axes left, up, forward."""
    cam_from_world = _PYTORCH3D_FROM_OPENGL @ camera.cam_from_world
    return cam_from_world[:3, :3].T, cam_from_world[:3, 3]


def from_pytorch3d(rotation: Array, translation: Array, like: Camera) -> Camera:
    """Invert `to_pytorch3d`; intrinsics and size are taken from ``like``."""
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = np.asarray(rotation).T
    cam_from_world[:3, 3] = translation
    return replace(like, world_from_cam=np.linalg.inv(_PYTORCH3D_FROM_OPENGL @ cam_from_world))


def to_pytorch3d_lens(camera: Camera) -> tuple[Array, Array]:
    """PyTorch3D: focal length and principal point (2,) in NDC, where the shorter side is [-1, 1] and +X is left.

    ``docs/notes/cameras.md`` of PyTorch3D: with s = min(height, width), focal 2 f / s, principal point
    (-(cx - width / 2), -(cy - height / 2)) * 2 / s.
    """
    unit = 2 / min(camera.width_px, camera.height_px)
    principal = np.array([camera.width_px / 2 - camera.cx_px, camera.height_px / 2 - camera.cy_px]) * unit
    return np.full(2, camera.focal_px * unit), principal


def from_pytorch3d_lens(focal: Array, principal: Array, like: Camera) -> Camera:
    """Invert `to_pytorch3d_lens`; pose and size are taken from ``like``."""
    unit = 2 / min(like.width_px, like.height_px)
    cx_px, cy_px = np.array([like.width_px, like.height_px]) / 2 - np.asarray(principal) / unit
    return replace(like, focal_px=float(focal[0]) / unit, cx_px=float(cx_px), cy_px=float(cy_px))


def to_sv3d(cameras: Sequence[Camera], input_index: int = 0) -> tuple[Array, Array]:
    """SV3D: absolute polar angle and azimuth relative to the input view in [0, 2 pi), radians, each (N,).

    The order of the views is kept; SV3D's own order (input view last) is made by `sv3d_order`.
    """
    polar = np.radians([90.0 - camera.elevation_deg for camera in cameras])
    azimuth = np.radians([(c.azimuth_deg - cameras[input_index].azimuth_deg) % 360.0 for c in cameras])
    return polar, azimuth


def from_sv3d(
    polar_rad: ArrayLike, azimuth_rad: ArrayLike, radius: float = DEFAULT_RADIUS, *, size_px: int
) -> tuple[Camera, ...]:
    """Invert `to_sv3d` for an input view at azimuth 0; SV3D does not observe the radius."""
    elevations = 90.0 - np.degrees(np.asarray(polar_rad))
    return tuple(
        Camera.looking_at_origin(float(azimuth), float(elevation), radius, size_px=size_px)
        for azimuth, elevation in zip(np.degrees(np.asarray(azimuth_rad)), elevations, strict=True)
    )


def sv3d_order(num_views: int, input_index: int = 0) -> list[int]:
    """Indices that bring views into SV3D's order: onward from the input view, which comes last."""
    return [(input_index + 1 + k) % num_views for k in range(num_views)]


def to_zero123(target: Camera, source: Camera) -> Array:
    """Zero123's relative pose (4,): changes of polar angle, of azimuth (as sine and cosine) and of radius."""
    polar_change = radians(source.elevation_deg - target.elevation_deg)
    azimuth_change = radians(target.azimuth_deg - source.azimuth_deg)
    return np.array([polar_change, sin(azimuth_change), cos(azimuth_change), target.radius - source.radius])


def from_zero123(pose: ArrayLike, source: Camera) -> Camera:
    """Invert `to_zero123`; the result looks at the origin with the intrinsics of ``source``."""
    polar_change, sine, cosine, radius_change = np.asarray(pose, dtype=np.float64)
    target = Camera.looking_at_origin(
        source.azimuth_deg + degrees(atan2(sine, cosine)),
        source.elevation_deg - degrees(polar_change),
        source.radius + radius_change,
        size_px=(source.width_px, source.height_px),
    )
    return replace(source, world_from_cam=target.world_from_cam)


def to_plucker(camera: Camera) -> Array:
    """Plücker coordinates (height, width, 6) of the pixel rays: unit direction, then moment ``origin x direction``."""
    directions = camera.directions(camera.pixel_grid())
    return np.concatenate([directions, np.cross(camera.position, directions)], axis=-1)


def from_plucker(rays: Array) -> Camera:
    """Recover the camera whose pixel rays are given, (height, width, 6), by least squares."""
    height_px, width_px, _ = rays.shape
    directions, moments = rays[..., :3].reshape(-1, 3), rays[..., 3:].reshape(-1, 3)
    # The centre o solves o x d = m, i.e. -[d]_x o = m, for all rays at once.
    zero = np.zeros(len(directions))
    dx, dy, dz = directions.T
    cross = np.stack([zero, dz, -dy, -dz, zero, dx, dy, -dx, zero], axis=-1).reshape(-1, 3)
    position = np.linalg.lstsq(cross, moments.reshape(-1), rcond=None)[0]
    # d ~ R K^-1 p: fit that matrix up to each ray's scale by eliminating the scale with a cross product, then split it.
    x, y = np.meshgrid(np.arange(width_px) + 0.5, np.arange(height_px) + 0.5)
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
    rows = np.einsum("nij,nk->nijk", cross.reshape(-1, 3, 3), pixels).reshape(-1, 9)
    world_from_pixel = np.linalg.svd(rows.T @ rows)[0][:, -1].reshape(3, 3)
    world_from_pixel *= np.sign(directions[0] @ world_from_pixel @ pixels[0])
    right, down = world_from_pixel[:, 0], world_from_pixel[:, 1]
    unit_right, unit_down = right / np.linalg.norm(right), down / np.linalg.norm(down)
    forward = np.cross(unit_right, unit_down)
    size = np.linalg.norm(right)  # columns are right/f and down/f times one unknown scale
    third = world_from_pixel[:, 2] / size  # f * forward - cx * right - cy * down
    focal_px, cx_px, cy_px = third @ forward, -third @ unit_right, -third @ unit_down
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = np.stack([unit_right, -unit_down, -forward], axis=1)
    world_from_cam[:3, 3] = position
    return Camera(world_from_cam, float(focal_px), width_px, height_px, float(cx_px), float(cy_px))

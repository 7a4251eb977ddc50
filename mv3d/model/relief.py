"""A picture that fills its frame has no outline to be an object by: it becomes a relief, a thick board with a front."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mv3d.errors import Mv3dError
from mv3d.mesh import Mesh
from mv3d.model.drawing import SurfaceCaster, in_frame_radii
from mv3d.model.posed_picture import PosedPicture

_CELLS = 128  # of the picture's longer side
_DEPTH = 0.22  # frame radii from the front's nearest to its farthest
_BACK = _DEPTH / 2 + 0.08  # of the board, which is so much thick at its thinnest
_SMOOTHING = 2.5  # of the depth, in cells
_NEAREST_PERCENT, _FARTHEST_PERCENT = 2, 98

Array = NDArray[np.float64]


def make_relief(surface: Mesh, picture: PosedPicture) -> Mesh:
    """The board (in frame radii) whose front shows a picture, as far in as a surface says beside its own extremes.

    Args:
        surface: what the coarse stage makes of the picture, in frame radii.
        picture: opaque in a rectangle.

    Raises:
        Mv3dError: if it is not.
    """
    camera = in_frame_radii(picture.camera(_CELLS), _CELLS)
    low, high = _rectangle(picture)
    depth = SurfaceCaster(surface).depth(camera).astype(np.float64)
    known = np.isfinite(depth)
    if known.any():
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        depth = ndimage.gaussian_filter(depth[tuple(nearest)], _SMOOTHING, mode="nearest")
    else:
        depth = np.zeros_like(depth)
    columns, rows = (np.linspace(a, b, max(2, round((b - a) * _CELLS / 2) + 1)) for a, b in zip(low, high, strict=True))
    u, v = np.meshgrid(columns, rows)
    at = [(v + 1) * _CELLS / 2 - 0.5, (u + 1) * _CELLS / 2 - 0.5]
    depth = ndimage.map_coordinates(depth, at, order=1, mode="nearest")
    near, far = np.percentile(depth, [_NEAREST_PERCENT, _FARTHEST_PERCENT])
    inwards = np.clip((depth - near) / max(far - near, 1e-6), 0, 1) * _DEPTH - _DEPTH / 2
    front = _points(camera.world_from_cam, camera.focal_px * 2 / _CELLS, u, v, camera.radius + inwards)
    back = _points(camera.world_from_cam, camera.focal_px * 2 / _CELLS, u, v, np.full_like(u, camera.radius + _BACK))
    return Mesh(np.concatenate([front, back]), _board(*u.shape))


def _rectangle(picture: PosedPicture) -> tuple[tuple[float, float], tuple[float, float]]:
    """Its upper left and lower right corner, u and v in [-1, 1]."""
    solid = picture.rgba[3].cpu().numpy() > 0.5
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    if not len(rows) or not solid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all():
        raise Mv3dError("a relief is made of a picture that fills its frame, and this one has an outline; cut it out")
    unit = 2 / len(solid)
    return (columns[0] * unit - 1, rows[0] * unit - 1), ((columns[-1] + 1) * unit - 1, (rows[-1] + 1) * unit - 1)


def _points(world_from_cam: Array, focal: float, u: Array, v: Array, depth: Array) -> Array:
    in_cam = np.stack([u * depth / focal, -v * depth / focal, -depth], axis=-1).reshape(-1, 3)
    return in_cam @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]


def _board(height: int, width: int) -> NDArray[np.int64]:
    """Triangles of a front of height x width vertices, row by row, a like back, and the rim between them."""
    index = np.arange(height * width).reshape(height, width)
    quads = [index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]]
    front = np.stack([quad.ravel() for quad in quads], axis=1)
    rim = np.concatenate([index[0, :-1], index[:-1, -1], index[-1, :0:-1], index[:0:-1, 0]])
    onward = np.roll(rim, -1)
    behind = height * width
    sides = np.stack([rim, onward, onward + behind, rim + behind], axis=1)
    faces = np.concatenate([front, front[:, ::-1] + behind, sides])
    return np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])

"""Which space an object fills: a grid carved by what is seen from all directions."""

from __future__ import annotations

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from mv3d.occupancy import OCCUPANCY_SIZE
from render.scene.scene import RenderScene

_NUM_DIRECTIONS = 40  # above and below included: a ring alone fills bowls and undersides
_PICTURE_PX = 224  # of the parallel projections
_MARGIN = 0.75  # cells in front of a surface that stay: a sheet without thickness keeps one and a half


def carve_occupancy(scene: RenderScene) -> NDArray[np.bool_]:
    """Find the cells (Z, Y, X) of the cube of half side ``scene.radius`` that no direction sees empty.

    Depth is traced along parallel rays from `_NUM_DIRECTIONS` sides (space carving: Kutulakos & Seitz 2000, with known
    depth in place of colours). A cell is seen empty where all four rays around its centre pass in front of the
    surface, so that parts as thin as the distance of rays are kept. Open meshes are as solid as they look.
    """
    embree = EmbreeScene()
    TriangleMesh(embree, np.ascontiguousarray(scene.corners / np.float32(scene.radius)))
    axis = ((np.arange(OCCUPANCY_SIZE, dtype=np.float32) + 0.5) / OCCUPANCY_SIZE) * 2 - 1
    z, y, x = (
        np.broadcast_to(axis.reshape(shape), (OCCUPANCY_SIZE,) * 3) for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
    )
    cells = np.flatnonzero((x**2 + y**2 + z**2 < 1).reshape(-1))
    points = np.stack([part.reshape(-1)[cells] for part in (x, y, z)], axis=1)
    for direction in _directions(_NUM_DIRECTIONS):
        right, up = _sideways(direction)
        depth = _trace_parallel(embree, direction, right, up)
        column, row = (((points @ side + 1) * (_PICTURE_PX / 2) + 0.5).astype(np.int32) for side in (right, up))
        kept = points @ direction + 1 > depth[row, column] - _MARGIN * 2 / OCCUPANCY_SIZE
        cells, points = cells[kept], points[kept]
    filled = np.zeros(OCCUPANCY_SIZE**3, dtype=bool)
    filled[cells] = True
    return filled.reshape((OCCUPANCY_SIZE,) * 3)


def _directions(count: int) -> NDArray[np.float32]:
    """Even unit vectors (count, 3): a Fibonacci lattice (Swinbank & Purser 2006)."""
    k = np.arange(count)
    height = (2 * k + 1) / count - 1
    turn = 2 * np.pi * k * (1 - (5**0.5 - 1) / 2)
    across = np.sqrt(1 - height**2)
    return np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=1).astype(np.float32)


def _sideways(direction: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two unit vectors across a direction and each other."""
    least = np.eye(3, dtype=np.float32)[np.abs(direction).argmin()]
    right = np.cross(direction, least)
    right /= np.linalg.norm(right)
    return right, np.cross(direction, right)


def _trace_parallel(
    embree: EmbreeScene, direction: NDArray[np.float32], right: NDArray[np.float32], up: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Nearest depth behind the plane that touches the unit sphere, of the four rays around each corner of pixels.

    (P + 1, P + 1), the rays of the border repeated; infinite where all four pass by.
    """
    side = (np.arange(_PICTURE_PX, dtype=np.float32) + 0.5) / (_PICTURE_PX / 2) - 1
    origins = (side[:, None, None] * up + side[None, :, None] * right - direction).reshape(-1, 3)
    rays = np.tile(direction, (len(origins), 1))
    hits = embree.run(origins, rays, query="INTERSECT", output=1)
    depth = np.where(hits["primID"] >= 0, hits["tfar"], np.inf).reshape(_PICTURE_PX, _PICTURE_PX).astype(np.float32)
    depth = np.pad(depth, 1, mode="edge")
    rows = np.minimum(depth[1:], depth[:-1])
    return np.minimum(rows[:, 1:], rows[:, :-1])

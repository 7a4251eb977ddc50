"""The visual hull: the largest body whose silhouettes are those of the views, as a smooth field on a grid.

The field is the signed distance in the world's unit to the nearest silhouette cone, positive inside; its zero level is
the hull (Laurentini 1994). Two decisions are taken by following the views' own rays through it:

* Views made by a model disagree, and parts thinner than a cell slip through any grid. How many views may be overruled,
  and how far the hull is widened, is what makes its silhouettes agree best with all views.
* Silhouettes from one elevation leave cones above a flat top and below a flat bottom. The hull ends at the lowest top
  and the highest bottom at which it still reaches both ends of every column of every view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mv3d.cameras import Camera
from mv3d.errors import Mv3dError
from mv3d.lift.grid import Grid
from mv3d.lift.views import SilhouetteViews

Array = NDArray[np.float64]
Box = tuple[Array, Array]

_MOST_OVERRULED = 2
_VIEWS_PER_OVERRULED = 6  # fewer views than this have to be taken at their word
_WIDENINGS = (0.0, 0.001, 0.002, 0.004, 0.008)  # of the picture's longer side
_PIXELS_PER_VIEW = 400  # that take part in the decision
_BAND = 0.03  # of the picture's longer side: pixels this close outside the outline take part
_COARSE_CELLS = 48
_STRIDE = 4  # of the sparse lattice that tells where the surface is
_STEEPEST = 1.5  # the field changes by less than this per unit of length


@dataclass(frozen=True)
class RayPoints:
    """Some of a view's pixels, and points on their rays inside the grid."""

    is_object: NDArray[np.bool_]
    """What the view says about each pixel."""
    points: Array
    on_ray: NDArray[np.int64]
    """The pixel that each point belongs to."""

    def highest(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The largest of the points' values on each ray; minus infinity where a ray has no point."""
        out = np.full(len(self.is_object), -np.inf, dtype=np.float32)
        np.maximum.at(out, self.on_ray, values)
        return out


def make_hull(views: SilhouetteViews, cells: int, box: Box | None = None) -> tuple[Grid, NDArray[np.float32]]:
    """Make the hull's field on a grid with ``cells`` cells along the object's longest side.

    ``box`` is what `find_box` says of the views, for those who ask several times.

    Raises:
        Mv3dError: if no body agrees with the views.
    """
    low, high = box or find_box(views)
    grid = Grid.around(low, high, cells, margin=3)
    return grid, _agreed_field(views, grid)


def find_box(views: SilhouetteViews) -> Box:
    """The lowest and the highest corner of the box around the hull, which a coarse one tells; raises as `make_hull`."""
    if not 0 < views.reach < np.inf:
        raise Mv3dError("all cameras stand at one place, so nothing can be told about depth: the poses are missing")
    reach = np.full(3, views.reach)
    grid = Grid.around(views.centre - reach, views.centre + reach, _COARSE_CELLS, margin=0)
    # The hull may pass between grid points: a point up to half a cell's diagonal away from it counts.
    slack = grid.spacing * _STEEPEST * 3**0.5 / 2
    most = views.lowest(grid.points(grid.indices), _num_ranks(views))[-1]
    low, high = _extent(grid, most.reshape(grid.shape), slack)
    grid = Grid.around(low, high, _COARSE_CELLS, margin=2)
    return _extent(grid, _agreed_field(views, grid), grid.spacing)


def _num_ranks(views: SilhouetteViews) -> int:
    return 1 + min(_MOST_OVERRULED, (len(views.cameras) - 1) // _VIEWS_PER_OVERRULED)


def _extent(grid: Grid, field: NDArray[np.float32], slack: float) -> tuple[Array, Array]:
    """The box around the points whose value is above ``-slack``."""
    inside = np.argwhere(field > -slack)
    if not len(inside):
        raise Mv3dError("the views show no common object: their cameras do not fit their silhouettes")
    return grid.points(inside.min(axis=0)), grid.points(inside.max(axis=0))


def _agreed_field(views: SilhouetteViews, grid: Grid) -> NDArray[np.float32]:
    ranked = _ranked_fields(views, grid)
    overruled, widening = _best_agreement(views, grid, ranked)
    field = ranked[overruled] + widening
    bottom, top = _heights(views, grid, field)
    height = grid.origin[2] + grid.spacing * np.arange(grid.shape[2])
    return np.minimum(field, np.minimum(top - height, height - bottom)).astype(np.float32)


def _ranked_fields(views: SilhouetteViews, grid: Grid) -> NDArray[np.float32]:
    """The hulls' fields with no view overruled, with one, ...: exact near the surfaces, interpolated far from them."""
    count = _num_ranks(views)
    nx, ny, nz = (-(-(n - 1) // _STRIDE) + 1 for n in grid.shape)
    sparse = Grid(grid.origin, grid.spacing * _STRIDE, (nx, ny, nz))
    values = views.lowest(sparse.points(sparse.indices), count).reshape(count, *sparse.shape)
    far = grid.spacing * sum(grid.shape)  # in place of infinity, which is what is behind all cameras
    values = np.minimum(values, np.float32(far))
    fields = np.stack([sparse.resample(value, grid) for value in values])
    is_close = np.any(np.abs(values) < sparse.spacing * _STEEPEST * 3**0.5 / 2, axis=0)
    close = np.nonzero(is_close[np.ix_(*(np.round(np.arange(n) / _STRIDE).astype(int) for n in grid.shape))])
    fields[:, *close] = views.lowest(grid.points(np.stack(close, axis=1)), count)
    return fields


def _best_agreement(views: SilhouetteViews, grid: Grid, ranked: NDArray[np.float32]) -> tuple[int, float]:
    """The number of views to overrule and the widening (world units) with the best mean IoU of silhouettes."""
    picture_size = views.pixel_size * max(views.cameras[0].width_px, views.cameras[0].height_px)
    return _most_agreed(views, grid, ranked, [fraction * picture_size for fraction in _WIDENINGS])


def best_widening(views: SilhouetteViews, grid: Grid, field: NDArray[np.float32], options: Sequence[float]) -> float:
    """Which of some widenings (world units) of a body gives the best mean IoU of silhouettes."""
    return _most_agreed(views, grid, field[None], options)[1]


def _most_agreed(
    views: SilhouetteViews, grid: Grid, fields: NDArray[np.float32], widenings: Sequence[float]
) -> tuple[int, float]:
    truth, reached = [], []
    for view, camera in enumerate(views.cameras):
        outline_px = views.outline_px(view)
        near = np.argwhere(outline_px > -_BAND * max(outline_px.shape))
        chosen = np.random.default_rng(view).permutation(near)[:_PIXELS_PER_VIEW]
        rays = _cast(camera, chosen, outline_px > 0, grid)
        truth.append(rays.is_object)
        reached.append([rays.highest(grid.interpolate(field, rays.points)) for field in fields])
    options = list(product(range(len(fields)), widenings))
    scores = [
        np.mean([_iou(highest[k] > -widening, is_object) for highest, is_object in zip(reached, truth, strict=True)])
        for k, widening in options
    ]
    return options[int(np.argmax(scores))]


def _heights(views: SilhouetteViews, grid: Grid, field: NDArray[np.float32]) -> tuple[float, float]:
    """The highest bottom and the lowest top of a body that still reaches the ends of every view's columns."""
    bottom, top = np.inf, -np.inf
    for view, camera in enumerate(views.cameras):
        inside = views.outline_px(view) > 0
        columns = np.flatnonzero(inside.any(axis=0))
        first_rows = inside[:, columns].argmax(axis=0)
        last_rows = len(inside) - 1 - inside[::-1, columns].argmax(axis=0)
        ends = np.concatenate([np.stack([rows, columns], axis=1) for rows in (first_rows, last_rows)])
        rays = _cast(camera, ends, inside, grid)
        # Half a cell of tolerance: a ray that only grazes the hull must not slip between its points.
        kept = grid.interpolate(field, rays.points) > -grid.spacing / 2
        height, on_ray = rays.points[kept, 2], rays.on_ray[kept]
        lowest, highest = np.full(len(ends), np.inf), np.full(len(ends), -np.inf)
        np.minimum.at(lowest, on_ray, height)
        np.maximum.at(highest, on_ray, height)
        met = np.isfinite(lowest)
        top = max(top, lowest[met].max(initial=-np.inf))
        bottom = min(bottom, highest[met].min(initial=np.inf))
    return bottom - views.pixel_size / 2, top + views.pixel_size / 2


def _cast(camera: Camera, pixels: NDArray[np.int64], is_object: NDArray[np.bool_], grid: Grid) -> RayPoints:
    """Follow the rays through pixels (row, column) through the grid's box, with one point to a cell."""
    low, high = grid.origin, grid.points(np.array(grid.shape) - 1)
    directions = camera.directions(pixels[:, ::-1] + 0.5)
    directions = np.where(np.abs(directions) < 1e-9, 1e-9, directions)
    walls = np.sort(np.stack([(low - camera.position) / directions, (high - camera.position) / directions]), axis=0)
    first, last = walls[0].max(axis=1).clip(0), walls[1].min(axis=1)
    counts = np.ceil((last - first) / grid.spacing).clip(0).astype(np.int64)
    on_ray = np.repeat(np.arange(len(pixels)), counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    points = camera.position + directions[on_ray] * (first[on_ray] + (number + 0.5) * grid.spacing)[:, None]
    return RayPoints(is_object[pixels[:, 0], pixels[:, 1]], points, on_ray)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))

"""Fitting a surface to views, from fog to a surface and from coarse to fine.

The hull of the silhouettes is where the object may be; colours that agree tell where in there it is. Views made by a
model disagree with each other, so the error grows linearly, each view has an exposure of its own, and a view that
fits badly counts less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from mv3d.lift.descent import Adam, SmoothDescent
from mv3d.lift.field import SurfaceField, visible_samples
from mv3d.lift.grid import Grid
from mv3d.lift.hull import best_widening, find_box, make_hull
from mv3d.lift.rays import LookUp, PixelRays, Samples, sample_rays
from mv3d.lift.views import SilhouetteViews
from mv3d.pixels import Frames, resize

_FAINTEST = 0.05  # alpha of rays whose colour counts
_BEND_WEIGHT, _EXPOSURE_WEIGHT = 0.1, 0.01
_COLOUR_RATE, _EXPOSURE_RATE = 0.03, 0.005
_SMOOTHING_PASSES = 2
_LEAST_CONFIDENCE = 0.25
_TOLERATED = 1.5  # times the views' median error, before a view loses confidence
_WIDENINGS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # cells
_CONTRAST = 2.0  # of alpha
_TELLING = 7.0  # times the blur: at such a depth a thousandth of the light is left
_BATCHES = 2  # that the rays of a round are looked at in, step by step: half the work, and momentum sees them all
_RIM_PX = 2  # pixels around the outline that are looked at too
_CELLS_A_PIXEL = 0.75  # more tell nothing


@dataclass(frozen=True)
class Level:
    """One stage of the fit."""

    cells: int
    """Along the object's longest side."""
    picture_px: int
    """The views' longer side, if they are not smaller anyway."""
    rays: int
    """Looked at in a round."""
    rounds: int
    steps: int
    """In each round."""
    first_blur: float
    last_blur: float
    """In cells."""
    rate: float
    """Cells that the surface may move in a step, about."""
    soft: float
    """Errors below this count quadratically. In fog all colours are wrong, and the most wrong must tell."""
    mask_weight: float
    """Of opacity against colour; in fog opacity would put a lid on every hollow."""


_FINE = {"rate": 0.15, "soft": 0.02, "mask_weight": 0.5}
LEVELS = (
    Level(48, 64, rays=40_000, rounds=6, steps=25, first_blur=6.0, last_blur=0.8, rate=0.4, soft=0.3, mask_weight=0.2),
    Level(96, 128, rays=40_000, rounds=4, steps=12, first_blur=1.2, last_blur=0.6, **_FINE),
    Level(160, 256, rays=60_000, rounds=5, steps=10, first_blur=0.8, last_blur=0.5, **_FINE),
)
_FOG = 1.0  # cells: the first level begins no deeper inside than this, so that rays reach everywhere


def fit_surface(
    views: SilhouetteViews,
    frames: Frames,
    cells: int,
    device: torch.device,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[Grid, NDArray[np.float32]]:
    """Fit a signed distance (positive inside, world units) to views; returns the grid and the field on it.

    Args:
        views: silhouettes and cameras.
        frames: (N, H, W, 4); their alpha is the silhouettes'.
        cells: along the object's longest side, at most; small pictures get fewer.
        device: where to compute.
        on_step: called with the steps done and in all.

    Raises:
        Mv3dError: if no body agrees with the silhouettes.
    """
    levels = _levels(min(cells, round(max(frames.shape[1:3]) * _CELLS_A_PIXEL)))
    fit = _Fit(views, frames, device)
    total = sum(level.rounds * level.steps for level in levels)
    done = 0
    for level in levels:
        for _ in fit.run(level):
            done += 1
            if on_step:
                on_step(done, total)
    return fit.result()


def _levels(cells: int) -> list[Level]:
    """The stages up to a resolution; the last one has exactly that."""
    coarser = [level for level in LEVELS if level.cells < cells]
    last = LEVELS[min(len(coarser), len(LEVELS) - 1)]
    return [*(level for level in coarser if level is not last), replace(last, cells=cells)]


@dataclass(frozen=True, eq=False)
class _Batch:
    """Rays that are looked at together."""

    look_up: LookUp
    lengths: Tensor
    """How many samples each ray has, (R,)."""
    target: Tensor
    """What the views show, (R, 4)."""
    view: Tensor
    """(R,)."""


class _Fit:
    """A fit under way: the field grows finer from level to level, what is known about the views stays."""

    def __init__(self, views: SilhouetteViews, frames: Frames, device: torch.device) -> None:
        self._views, self._frames, self._device = views, frames, device
        self._box = find_box(views)
        self._rng = np.random.default_rng(0)
        self._field: SurfaceField | None = None
        self._exposure = torch.zeros(len(frames), 3, device=device, requires_grad=True)
        self._confidence = torch.ones(len(frames), device=device)

    def result(self) -> tuple[Grid, NDArray[np.float32]]:
        """The grid and the distance on it.

        A ray along a blurred surface sees it from a little outside, so silhouettes make the fit too lean by about the
        blur; it is widened again as they like it best.
        """
        assert self._field is not None
        grid, distance = self._field.grid, self._field.bounded_array()
        wider = best_widening(self._views, grid, distance, [cells * grid.spacing for cells in _WIDENINGS])
        limit = self._field.limit.cpu().numpy().reshape(grid.shape)
        return grid, np.minimum(distance + np.float32(wider), limit)

    def run(self, level: Level) -> Iterator[None]:
        """Fit at one level, yielding after each step."""
        rays = self._rays(level.picture_px)
        grid, hull = make_hull(self._views, level.cells, self._box)
        field = self._field = self._begin(grid, hull)
        allowed = ndimage.binary_dilation(hull > -grid.spacing)
        descent = SmoothDescent(field.distance, grid.shape, level.rate * grid.spacing, _SMOOTHING_PASSES)
        others = Adam([(field.colour, _COLOUR_RATE), (self._exposure, _EXPOSURE_RATE)], betas=(0.9, 0.95))
        for blur in (np.geomspace(level.first_blur, level.last_blur, level.rounds) * grid.spacing).tolist():
            chosen = rays.take(np.sort(self._rng.permutation(len(rays))[: level.rays]))
            inside = field.bounded_array()
            # Farther outside no light is lost, and farther inside none is left.
            telling = allowed & (np.abs(inside) < _TELLING * blur + grid.spacing)
            samples = sample_rays(chosen, grid, telling, self._rng)
            distance = grid.interpolate(inside, samples.points.astype(np.float64))
            samples = samples.take(visible_samples(samples, distance, len(chosen), blur, grid.spacing))
            batches = [self._batch(chosen, samples, start) for start in range(_BATCHES)]
            seen: list[tuple[Tensor, Tensor]] = []
            for step in range(level.steps):
                batch = batches[step % _BATCHES]
                error = self._error(field.render(batch.look_up, batch.lengths, blur), batch.target, batch.view, level)
                loss = (error * self._confidence[batch.view]).mean() + _BEND_WEIGHT * field.bending(blur)
                loss = loss + _EXPOSURE_WEIGHT * self._exposure.square().mean()
                loss.backward()
                others.step()
                descent.step()
                seen = [*seen, (error.detach(), batch.view)][-_BATCHES:]
                yield
            self._confidence = self._trust(*(torch.cat(part) for part in zip(*seen, strict=True)))

    def _batch(self, rays: PixelRays, samples: Samples, start: int) -> _Batch:
        """The rays from one on, ``_BATCHES`` apart."""
        assert self._field is not None
        mine = samples.ray % _BATCHES == start
        lengths = np.bincount(samples.ray, minlength=len(rays))[start::_BATCHES]
        look_up = LookUp(self._field.grid, samples.points[mine], self._device)
        arrays = (lengths, rays.rgba[start::_BATCHES], rays.view[start::_BATCHES])
        return _Batch(look_up, *(torch.from_numpy(np.ascontiguousarray(array)).to(self._device) for array in arrays))

    def _rays(self, picture_px: int) -> PixelRays:
        height, width = self._frames.shape[1:3]
        scale = min(1.0, picture_px / max(height, width))
        size = round(width * scale), round(height * scale)
        frames = self._frames if scale == 1 else np.stack([resize(frame, *size) for frame in self._frames])
        cameras = tuple(camera.resized(*size) for camera in self._views.cameras)
        near = np.stack([ndimage.binary_dilation(frame[..., 3] > 0.02, iterations=_RIM_PX) for frame in frames])
        # Surfaces are opaque: what a view shows half transparent is decided, as for the silhouettes.
        alpha = np.clip((frames[..., 3:] - 0.5) * _CONTRAST + 0.5, 0, 1)
        return PixelRays.through(near, np.concatenate([frames[..., :3], alpha], axis=-1), cameras)

    def _begin(self, grid: Grid, hull: NDArray[np.float32]) -> SurfaceField:
        """The hull with its mean colours, or what the coarser level has carved away from it."""
        if self._field is None:
            fog = np.minimum(hull, np.float32(_FOG * grid.spacing))
            return SurfaceField.of(grid, fog, self._mean_colours(grid, hull), hull, self._device)
        carved, colour = self._field.resampled(grid)
        return SurfaceField.of(grid, hull - carved, colour, hull, self._device)

    def _mean_colours(self, grid: Grid, hull: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each grid point's colour, averaged over all views, (X, Y, Z, 3)."""
        inside = (hull > -2 * grid.spacing).reshape(-1)
        points = grid.points(grid.indices[inside])
        total = np.zeros((len(points), 4))
        for frame, camera in zip(self._frames, self._views.cameras, strict=True):
            pixels, _ = camera.project(points)
            column, row = np.floor(pixels).astype(int).T
            rgba = frame[row.clip(0, frame.shape[0] - 1), column.clip(0, frame.shape[1] - 1)]
            total += np.concatenate([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], axis=1)
        colours = np.full((inside.size, 3), 0.5, dtype=np.float32)
        colours[inside] = total[:, :3] / np.maximum(total[:, 3:], 1e-3)
        return colours.reshape(*grid.shape, 3)

    def _error(self, seen: Tensor, target: Tensor, view: Tensor, level: Level) -> Tensor:
        """Of each ray's premultiplied RGBA ``seen`` (R, 4) against straight ``target``, (R,).

        Colours are compared straight: fog must become the right colour, not just denser.
        """
        gain = torch.exp(self._exposure - self._exposure.mean(dim=0))[view]
        straight = seen[:, :3] / seen[:, 3:].clamp(min=_FAINTEST)
        colour = _soft(straight * gain - target[:, :3], level.soft).mean(dim=1) * target[:, 3]
        return colour + level.mask_weight * _soft(seen[:, 3] - target[:, 3], level.soft)

    def _trust(self, error: Tensor, view: Tensor) -> Tensor:
        """How much each view counts, (N,): one that fits much worse than most loses confidence."""
        count = torch.bincount(view, minlength=len(self._frames)).clamp(min=1)
        mean = torch.zeros_like(self._confidence).index_add_(0, view, error) / count
        return (_TOLERATED * mean.median() / mean.clamp(min=1e-6)).square().clamp(_LEAST_CONFIDENCE, 1.0)


def _soft(error: Tensor, scale: float) -> Tensor:
    """Charbonnier's loss: quadratic below ``scale``, then linear."""
    return (error.square() + scale**2).sqrt() - scale

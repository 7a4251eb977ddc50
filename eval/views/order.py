"""Whether predicted views fit the truth better in another order, or mirrored.

A wrong order or a mirrored world costs decibels and looks like a bad model. Files do not tell; the pictures do: over
all objects together, the views are tried in every turn, in every turn the other way round, in the order that fits best,
and all of these mirrored. What is better beyond chance is a warning and never a repair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from eval.metrics.statistics import bootstrap_mean
from mv3d.pixels import Frames

_SIDE_PX = 16  # enough to tell views apart
_LEAST_GAIN_DB = 0.5
_LEAST_GAIN_OF_FEW_DB = 1.5  # where an interval over objects says little
_FEW_OBJECTS = 5

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OrderErrors:
    """Mean squared error of each predicted view (row) against each true one, as it is and mirrored: (N, N) each."""

    plain: Array
    mirrored: Array


def order_errors(pred: Frames, truth: Frames) -> OrderErrors:
    """Compare all views (N, H, W, 3) of both sides with each other, reduced to thumbnails."""
    small_pred, small_truth = _thumbnails(pred), _thumbnails(truth)
    return OrderErrors(_errors(small_pred, small_truth), _errors(small_pred[:, :, ::-1], small_truth))


def find_better_order(errors: Sequence[OrderErrors]) -> str | None:
    """Say in what order a method's views would fit better, if in any; one item for each object.

    Objects with another number of views than the first are not looked at.
    """
    count = len(errors[0].plain)
    alike = [e for e in errors if len(e.plain) == count]
    plain = np.stack([e.plain for e in alike])
    mirrored = np.stack([e.mirrored for e in alike])
    base = _psnr_db(plain, np.arange(count))
    best: tuple[float, str, Array] = (0.0, "", base)
    for name, order, flipped in _orders(plain, mirrored):
        gains = _psnr_db(mirrored if flipped else plain, order) - base
        if gains.mean() > best[0] + 1e-9:
            best = (float(gains.mean()), name, gains)
    gain_db, name, gains = best
    least = _LEAST_GAIN_DB if len(alike) >= _FEW_OBJECTS else _LEAST_GAIN_OF_FEW_DB
    interval = bootstrap_mean(gains.tolist())
    if gain_db < least or interval.low < least / 2:
        return None
    better = int((gains > 0).sum())
    return (
        f"its views fit the truth better {name}: {gain_db:+.1f} dB over the order given, better for {better} of "
        f"{len(alike)} objects; check the order and the handedness of its cameras"
    )


def _orders(plain: Array, mirrored: Array) -> list[tuple[str, NDArray[np.int64], bool]]:
    """The orders to try, simple ones first: name, true view of each predicted one, and whether it is mirrored."""
    count = plain.shape[1]
    views = np.arange(count)
    candidates = []
    for flipped, suffix in ((False, ""), (True, " and mirrored")):
        if flipped:
            candidates.append(("mirrored left to right", views, True))
        for k in range(1, count):
            steps = k if k <= count // 2 else k - count
            name = f"shifted by {steps:+d} view{'s' if abs(steps) > 1 else ''}"
            candidates.append((name + suffix, (views + k) % count, flipped))
        for k in range(count):
            turned = f", starting at view {k}" if k else ""
            candidates.append((f"the other way round{turned}{suffix}", (k - views) % count, flipped))
        _, order = linear_sum_assignment((mirrored if flipped else plain).mean(axis=0))
        moved = [f"{k}→{to}" for k, to in enumerate(order) if k != to]
        listed = ", ".join(moved[:4]) + (" …" if len(moved) > 4 else "")
        candidates.append((f"in another order ({listed}){suffix}", order, flipped))
    return candidates


def _psnr_db(errors: Array, order: NDArray[np.int64]) -> Array:
    """Mean PSNR of each object's views in an order, (objects,); a floor keeps perfect views from deciding alone."""
    chosen = errors[:, np.arange(errors.shape[1]), order]
    return (-10 * np.log10(np.maximum(chosen, 1e-5))).mean(axis=1)


def _thumbnails(pictures: Frames) -> Array:
    """Means over a grid of cells, (N, 16, 16, 3) or smaller."""
    _, height, width, _ = pictures.shape
    rows, columns = (np.linspace(0, side, min(side, _SIDE_PX) + 1).astype(int)[:-1] for side in (height, width))
    sums = np.add.reduceat(np.add.reduceat(pictures.astype(np.float64), rows, axis=1), columns, axis=2)
    heights, widths = np.diff([*rows, height]), np.diff([*columns, width])
    return sums / (heights[:, None] * widths)[None, :, :, None]


def _errors(pred: Array, truth: Array) -> Array:
    a, b = (x.reshape(len(x), -1) for x in (pred, truth))
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squared, 0) / a.shape[1]

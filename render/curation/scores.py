"""What rendered views tell about an object: numbers that curation compares with thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mv3d.orbit import Orbit
from render.curation.text import Word

_SIZE_PX = 64
_BINS = 4
_ROWS = 16


@dataclass(frozen=True, eq=False)
class Scores:
    """Means over the views of one orbit, if nothing else is said."""

    silhouette: float
    """Share of the frame that is covered."""
    colour: float
    """Spread of chromaticity: standard deviation of r and g in r + g + b = 1, over all views."""
    contrast: float
    """Standard deviation of brightness, over all views."""
    thinness: float
    """Narrowest silhouette over widest."""
    flatness: float
    """Height of the silhouette over the width of the widest one."""
    largest_piece: float
    """Share of the silhouette in its largest connected piece."""
    triangles: int
    lacking_files: int
    """Materials and pictures that the model names and that were not there when it was rendered."""
    look: NDArray[np.float32]
    """What does not change with the first view's azimuth: colours and widths at every height; sums to 2."""
    words: tuple[Word, ...] = ()
    """What can be read in single views; empty if nobody has tried."""


def score_orbit(orbit: Orbit) -> Scores:
    """Measure an orbit at a small size."""
    from scipy import ndimage

    small = orbit.resized(_SIZE_PX) if orbit.frames.shape[1] > _SIZE_PX else orbit
    covered = small.frames[..., 3] > 0.5
    share = float(covered.mean())
    triangles, lacking = (int(orbit.facts.extra.get(key, 0)) for key in ("triangles", "lacking_files"))
    if not covered.any():
        return Scores(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, triangles, lacking, np.zeros(_BINS**3 + _ROWS, np.float32))
    rgb = small.frames[covered][:, :3]
    chroma = rgb / np.maximum(rgb.sum(axis=-1, keepdims=True), 0.05)
    widths = covered.any(axis=1).sum(axis=-1)
    heights = covered.any(axis=2).sum(axis=-1)
    pieces = []
    for mask in covered[covered.any(axis=(1, 2))]:
        labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        counts = np.bincount(labels.ravel())[1:]
        pieces.append(counts.max() / counts.sum())
    return Scores(
        silhouette=share,
        colour=float(np.sqrt(chroma[:, :2].var(axis=0).sum())),
        contrast=float(rgb.mean(axis=-1).std()),
        thinness=float(widths.min() / widths.max()),
        flatness=float(heights.mean() / widths.max()),
        largest_piece=float(np.mean(pieces)),
        triangles=triangles,
        lacking_files=lacking,
        look=_look(rgb, covered),
    )


def _look(rgb: NDArray, covered: NDArray) -> NDArray[np.float32]:
    bins = np.minimum((rgb * _BINS).astype(int), _BINS - 1) @ np.array([_BINS**2, _BINS, 1])
    colours = np.bincount(bins, minlength=_BINS**3) / len(bins)
    rows = covered.sum(axis=(0, 2)).astype(np.float64)
    edges = np.linspace(0, len(rows), _ROWS + 1).astype(int)
    widths = np.add.reduceat(rows, edges[:-1]) / rows.sum()
    return np.concatenate([colours, widths]).astype(np.float32)

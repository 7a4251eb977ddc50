"""How sure a mean over objects is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000
_SEED = 0
INTERVALS = f"95 % intervals: percentile bootstrap over objects, {_RESAMPLES} resamples, seed {_SEED}"


@dataclass(frozen=True)
class Estimate:
    """A mean over objects and its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float]) -> Estimate:
    """The mean with a percentile bootstrap interval (Efron 1979), resampling the values, one for each object."""
    array = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(_SEED).integers(len(array), size=(_RESAMPLES, len(array)))
    low, high = np.percentile(array[drawn].mean(axis=1), [2.5, 97.5])
    return Estimate(float(array.mean()), float(low), float(high))

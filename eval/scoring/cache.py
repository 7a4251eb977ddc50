"""Scores that were made before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval import versions
from eval.metrics.names import Columns
from eval.metrics.perceptual import PerceptualMetric
from eval.views.views import Views
from mv3d.files import whole_file


class ScoreCache:
    """Scores by what they are of: pixels of both sides, settings, networks and `versions.SCORING`.

    Equal views are scored once: a run that was killed goes on, and baselines are not scored again for the next model.
    """

    def __init__(self, folder: Path, networks: Sequence[PerceptualMetric], settings: object) -> None:
        """Keep scores made with these networks and settings (told apart by their ``repr``) in ``folder``."""
        self._folder = folder
        made_with = (versions.SCORING, [network.key for network in networks], settings)
        self._made_with = hashlib.blake2b(repr(made_with).encode())

    def load(self, predicted: Views, truth: Views) -> Columns | None:
        """The scores of these views, if they are known."""
        path = self._path(predicted, truth)
        if not path.is_file():
            return None
        known = json.loads(path.read_text())
        return {key: np.array([np.nan if v is None else v for v in values]) for key, values in known.items()}

    def save(self, predicted: Views, truth: Views, columns: Mapping[str, NDArray[np.float64]]) -> None:
        """Keep scores."""
        values = {key: [float(v) if np.isfinite(v) else None for v in column] for key, column in columns.items()}
        with whole_file(self._path(predicted, truth)) as partial:
            partial.write_text(json.dumps(values))

    def _path(self, predicted: Views, truth: Views) -> Path:
        digest = self._made_with.copy()
        for views in (predicted, truth):
            digest.update(str(views.frames.shape).encode() + np.ascontiguousarray(views.frames).tobytes())
        name = digest.hexdigest()[:32]
        return self._folder / name[:2] / f"{name}.json"

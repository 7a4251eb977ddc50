"""What a prediction has to beat: views made without a model, from the input view or from the training orbits.

The training orbits are read one at a time, whatever their number. Any of a training orbit's views can be its first, so
retrieval looks at all of them, and the orbit found is turned until the retrieved view is its first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.scoring.score import ANGLE_TOLERANCE_DEG
from eval.views.views import Views
from mv3d.cameras import Camera
from mv3d.errors import Mv3dError
from mv3d.orbit import Orbit, load_orbit
from mv3d.pixels import Frames

REPEATED, WHITE, MEAN, NEAREST, LIFTED = (
    "input view repeated",
    "white",
    "mean training orbit",
    "nearest training orbit",
    "true views, lifted",
)


@dataclass(frozen=True)
class Match:
    """The training view nearest to an input view, by mean squared error on white."""

    folder: Path
    start: int
    error: float


@dataclass(frozen=True, eq=False)
class TrainingOrbits:
    """What one pass over the training orbits gives."""

    mean_frames: Frames
    """The mean of the training orbits, (N, H, W, 4) straight alpha; view 0 is the mean of their first views."""
    matches: tuple[Match, ...]
    """One for each input view."""


def input_view(views: Views | Orbit) -> int:
    """Which view a prediction starts from: what is known about it, or the first."""
    index = views.input_index if isinstance(views, Views) else views.facts.input_index
    return index or 0


def read_training_orbits(folders: Sequence[Path], inputs: Frames, like: Views) -> TrainingOrbits:
    """Read every training orbit once: take their mean, and find the view nearest to each of ``inputs`` (Q, H, W, 3).

    Raises:
        Mv3dError: if a training orbit is unlike ``like`` in number or spacing of views, or in size.
    """
    assert folders, "no training orbits"
    wanted = inputs.reshape(len(inputs), -1)
    wanted_norms = np.square(wanted).sum(axis=1)
    total = np.zeros(like.frames.shape, dtype=np.float64)
    matches = [Match(folders[0], 0, np.inf)] * len(inputs)
    _check_spacing(like.cameras or (), "the truth")
    for folder in folders:
        orbit = load_orbit(folder)
        _check_layout(orbit, like, folder)
        orbit = _from_view(orbit, input_view(orbit))
        total += _premultiplied(orbit.frames)
        views = orbit.on().reshape(len(orbit), -1)
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab: all views against all inputs in one product.
        squared = np.square(views).sum(axis=1)[:, None] + wanted_norms - 2 * views @ wanted.T
        for k, start in enumerate(squared.argmin(axis=0)):
            error = float(squared[start, k]) / wanted.shape[1]
            if error < matches[k].error:
                matches[k] = Match(folder, int(start), error)
    return TrainingOrbits(_straight(total / len(folders)), tuple(matches))


def repeat_input(truth: Views) -> Views:
    """Show the input view from every side."""
    return _like(truth, np.repeat(truth.frames[[input_view(truth)]], len(truth), axis=0))


def show_nothing(truth: Views) -> Views:
    """Show the background."""
    return _like(truth, np.zeros_like(truth.frames))


def mean_orbit(training: TrainingOrbits, truth: Views) -> Views:
    """Show the mean of the training orbits."""
    return _like(truth, np.roll(training.mean_frames, input_view(truth), axis=0))


def nearest_orbit(match: Match, truth: Views) -> Views:
    """Show the training orbit whose view ``match.start`` is nearest to the input view, turned to begin there."""
    orbit = load_orbit(match.folder)
    found = _from_view(orbit, (input_view(orbit) + match.start) % len(orbit))
    return _like(truth, np.roll(found.frames, input_view(truth), axis=0))


def _like(truth: Views, frames: Frames) -> Views:
    return replace(truth, frames=frames.astype(np.float32), input_index=input_view(truth))


def _from_view(orbit: Orbit, first: int) -> Orbit:
    return orbit.select([(first + k) % len(orbit) for k in range(len(orbit))])


def _check_layout(orbit: Orbit, truth: Views, folder: Path) -> None:
    if orbit.frames.shape != truth.frames.shape:
        ours, theirs = (f"{len(f)} views of {f.shape[2]}x{f.shape[1]} px" for f in (orbit.frames, truth.frames))
        raise Mv3dError(f"training orbit {folder} has {ours}, the truth {theirs}; render both alike")
    _check_spacing(orbit.cameras, f"training orbit {folder}")


def _check_spacing(cameras: Sequence[Camera], name: str) -> None:
    azimuths = np.array([camera.azimuth_deg for camera in cameras])
    even = 360 * np.arange(len(azimuths)) / max(len(azimuths), 1)
    off_deg = (azimuths - azimuths[:1] - even + 180) % 360 - 180
    if not len(azimuths) or np.abs(off_deg).max() > ANGLE_TOLERANCE_DEG:
        raise Mv3dError(f"{name} is not evenly spaced over one turn, as the training baselines need; use static orbits")


def _premultiplied(frames: Frames) -> Frames:
    return np.concatenate([frames[..., :3] * frames[..., 3:], frames[..., 3:]], axis=-1)


def _straight(premultiplied: NDArray[np.float64]) -> Frames:
    alpha = premultiplied[..., 3:]
    return np.concatenate([premultiplied[..., :3] / np.maximum(alpha, 1e-6), alpha], axis=-1).astype(np.float32)

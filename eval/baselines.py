"""What a prediction has to beat: orbits made without a model, from the input view or from the training orbits.

The training orbits are read one at a time, whatever their number. Any of a training orbit's views can be its first, so
retrieval looks at all of them, and the orbit found is turned until the retrieved view is its first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.score import ANGLE_TOLERANCE_DEG
from mv3d.errors import Mv3dError
from mv3d.orbit import Frames, Orbit, load_orbit


@dataclass(frozen=True)
class Match:
    """The training view nearest to an input view, by mean squared error on white."""

    folder: Path
    start: int
    error: float


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over the training orbits gives."""

    mean_frames: Frames
    """The mean of the training orbits, (N, H, W, 4) straight alpha; view 0 is the mean of their first views."""
    matches: tuple[Match, ...]
    """One for each input view."""


def input_view(truth: Orbit) -> int:
    """Which view of the truth a prediction starts from: what its facts say, or the first."""
    return truth.facts.input_index or 0


def survey_training(folders: Sequence[Path], inputs: Frames, like: Orbit) -> Survey:
    """Read every training orbit once: take their mean, and find the view nearest to each of ``inputs`` (Q, H, W, 3).

    Raises:
        Mv3dError: if a training orbit is unlike ``like`` in number or spacing of views, or in size.
    """
    assert folders, "no training orbits"
    wanted = inputs.reshape(len(inputs), -1)
    wanted_norms = np.square(wanted).sum(axis=1)
    total = np.zeros(like.frames.shape, dtype=np.float64)
    matches = [Match(folders[0], 0, np.inf)] * len(inputs)
    _check_spacing(like, "the truth")
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
    return Survey(_straight(total / len(folders)), tuple(matches))


def repeat_input(truth: Orbit) -> Orbit:
    """Show the input view from every side."""
    return _like(truth, np.repeat(truth.frames[[input_view(truth)]], len(truth), axis=0), "input view repeated")


def mean_orbit(survey: Survey, truth: Orbit) -> Orbit:
    """Show the mean of the training orbits."""
    return _like(truth, np.roll(survey.mean_frames, input_view(truth), axis=0), "mean training orbit")


def nearest_orbit(match: Match, truth: Orbit) -> Orbit:
    """Show the training orbit whose view ``match.start`` is nearest to the input view, turned to begin there."""
    orbit = load_orbit(match.folder)
    found = _from_view(orbit, (input_view(orbit) + match.start) % len(orbit))
    return _like(truth, np.roll(found.frames, input_view(truth), axis=0), "nearest training orbit")


def _like(truth: Orbit, frames: Frames, made_by: str) -> Orbit:
    facts = replace(truth.facts, input_index=input_view(truth), made_by=made_by, seconds={}, extra={})
    return Orbit(frames.astype(np.float32), truth.cameras, facts)


def _from_view(orbit: Orbit, first: int) -> Orbit:
    return orbit.select([(first + k) % len(orbit) for k in range(len(orbit))])


def _check_layout(orbit: Orbit, truth: Orbit, folder: Path) -> None:
    if orbit.frames.shape != truth.frames.shape:
        ours, theirs = (f"{len(o)} views of {o.frames.shape[2]}x{o.frames.shape[1]} px" for o in (orbit, truth))
        raise Mv3dError(f"training orbit {folder} has {ours}, the truth {theirs}; render both alike")
    _check_spacing(orbit, f"training orbit {folder}")


def _check_spacing(orbit: Orbit, name: str) -> None:
    azimuths = np.array([camera.azimuth_deg for camera in orbit.cameras])
    off_deg = (azimuths - azimuths[0] - 360 * np.arange(len(orbit)) / len(orbit) + 180) % 360 - 180
    if np.abs(off_deg).max() > ANGLE_TOLERANCE_DEG:
        raise Mv3dError(f"{name} is not evenly spaced over one turn, as the training baselines need; use static orbits")


def _premultiplied(frames: Frames) -> Frames:
    return np.concatenate([frames[..., :3] * frames[..., 3:], frames[..., 3:]], axis=-1)


def _straight(premultiplied: NDArray[np.float64]) -> Frames:
    alpha = premultiplied[..., 3:]
    return np.concatenate([premultiplied[..., :3] / np.maximum(alpha, 1e-6), alpha], axis=-1).astype(np.float32)

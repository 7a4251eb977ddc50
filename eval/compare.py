"""Methods against each other and against the baselines, on the same objects from the same input views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.baselines import Match, Survey, input_view, mean_orbit, nearest_orbit, repeat_input, survey_training
from eval.folders import find_orbits, object_of
from eval.metrics.lpips import Lpips
from eval.score import OrbitScores, Scores, score_orbit
from mv3d.errors import Mv3dError
from mv3d.orbit import Frames, Orbit, load_orbit

REPEATED, MEAN, NEAREST = "input view repeated", "mean training orbit", "nearest training orbit"
BASELINES = (REPEATED, MEAN, NEAREST)
SPREAD_DEFINITION = (
    "mean over views, pixels and channels of the squared difference between a true view and the mean of the object's "
    "true views, on white"
)


@dataclass(frozen=True)
class Entry:
    """A true orbit, each method's prediction of it, and the training view nearest to its input view."""

    name: str
    truth: Path
    predictions: dict[str, Path]
    nearest: Match

    def load(self, survey: Survey) -> tuple[Orbit, dict[str, Orbit]]:
        """The truth, and all predictions by method, baselines last."""
        truth = load_orbit(self.truth)
        orbits = {method: load_orbit(folder) for method, folder in self.predictions.items()}
        orbits[REPEATED] = repeat_input(truth)
        orbits[MEAN] = mean_orbit(survey, truth)
        orbits[NEAREST] = nearest_orbit(self.nearest, truth)
        return truth, orbits


@dataclass(frozen=True, eq=False)
class Contest:
    """The orbits to score, the training orbits' survey, and the true orbits that are not counted, with the reason."""

    entries: tuple[Entry, ...]
    survey: Survey
    num_training_orbits: int
    left_out: dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """Scores of all methods on all objects, the input view left out."""

    methods: tuple[str, ...]
    """The first is the one that the others are compared with."""
    objects: tuple[str, ...]
    scores: dict[str, tuple[Scores, ...]]
    """By method, one for each object: the mean over its orbits."""
    spreads: tuple[float, ...]
    """How much each object's true views differ (`SPREAD_DEFINITION`)."""
    orbits: tuple[OrbitScores, ...]
    """The first method's scores, one for each orbit that was counted."""
    num_training_orbits: int
    left_out: dict[str, str]

    @property
    def varied(self) -> tuple[int, ...]:
        """Indices of the half of the objects with the larger spread; of an odd number the middle one is in."""
        order = np.argsort(self.spreads, kind="stable")[len(self.spreads) // 2 :]
        return tuple(sorted(int(k) for k in order))


def gather_contest(truth: Path, training: Path, methods: dict[str, Path]) -> Contest:
    """Match the folders of predictions with the truth by relative path, and survey the training orbits.

    ``truth`` and ``training`` may be one rendered collection, whose manifest tells test objects from training objects.

    Raises:
        Mv3dError: if nothing is left to compare, or training orbits are unlike the true ones or among them.
    """
    truths, training_folders = find_orbits(truth, "test"), list(find_orbits(training, "train").values())
    shared = {path.resolve() for path in truths.values()} & {path.resolve() for path in training_folders}
    if shared:
        raise Mv3dError(f"{min(shared)} is both truth and training; give another folder or one with a manifest")
    predictions = {method: find_orbits(folder) for method, folder in methods.items()}
    lacking = {name: [method for method, found in predictions.items() if name not in found] for name in truths}
    complete = [name for name in truths if not lacking[name]]
    if not complete:
        raise Mv3dError(f"no orbit of {truth} is in the folders of all methods; name them by the same relative paths")
    like = load_orbit(truths[complete[0]])
    inputs = np.stack([_load_input(truths[name], like) for name in complete])
    survey = survey_training(training_folders, inputs, like)
    entries = tuple(
        Entry(name, truths[name], {method: found[name] for method, found in predictions.items()}, match)
        for name, match in zip(complete, survey.matches, strict=True)
    )
    left_out = {name: f"no prediction by {', '.join(methods)}" for name, methods in lacking.items() if methods}
    return Contest(entries, survey, len(training_folders), left_out)


def score_contest(contest: Contest, lpips: Sequence[Lpips] = ()) -> Comparison:
    """Score all methods and the three baselines; an orbit that one method gets wrong is counted for none.

    Raises:
        Mv3dError: if not one orbit could be scored for all methods.
    """
    left_out = dict(contest.left_out)
    counted: dict[str, list[tuple[dict[str, OrbitScores], float]]] = {}
    for entry in contest.entries:
        try:
            truth, orbits = entry.load(contest.survey)
            scores = {method: score_orbit(orbit, truth, lpips) for method, orbit in orbits.items()}
        except Mv3dError as error:
            left_out[entry.name] = str(error)
            continue
        counted.setdefault(object_of(entry.name), []).append((scores, view_spread(truth)))
    if not counted:
        name, reason = next(iter(left_out.items()))
        raise Mv3dError(f"not one orbit could be compared; {name}: {reason}")
    methods = (*contest.entries[0].predictions, *BASELINES)
    return Comparison(
        methods,
        tuple(counted),
        {
            method: tuple(_object_mean([s[method] for s, _ in orbits]) for orbits in counted.values())
            for method in methods
        },
        tuple(float(np.mean([spread for _, spread in orbits])) for orbits in counted.values()),
        tuple(scores[methods[0]] for orbits in counted.values() for scores, _ in orbits),
        contest.num_training_orbits,
        left_out,
    )


def view_spread(truth: Orbit) -> float:
    """How much an object's true views differ from each other (`SPREAD_DEFINITION`)."""
    views = truth.on()
    return float(np.square(views - views.mean(axis=0)).mean())


def _object_mean(orbits: Sequence[OrbitScores]) -> Scores:
    means = [orbit.mean_without_input for orbit in orbits]
    return Scores.mean([mean for mean in means if mean is not None])


def _load_input(folder: Path, like: Orbit) -> Frames:
    orbit = load_orbit(folder)
    if orbit.frames.shape != like.frames.shape:
        raise Mv3dError(f"{folder} has other numbers or sizes of views than the other true orbits; compare them apart")
    return orbit.on()[input_view(orbit)]

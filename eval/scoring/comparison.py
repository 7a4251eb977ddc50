"""From views on disk to a result: truth, the method under test and the baselines, scored together."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from eval.metrics.perceptual import PerceptualMetric
from eval.options import Order
from eval.protocol import Protocol
from eval.scoring.baselines import (
    MEAN,
    NEAREST,
    REPEATED,
    WHITE,
    Match,
    TrainingOrbits,
    input_view,
    mean_orbit,
    nearest_orbit,
    read_training_orbits,
    repeat_input,
    show_nothing,
)
from eval.scoring.cache import ScoreCache
from eval.scoring.results import Method, ObjectResult, RunResult, as_column, describe_versions
from eval.scoring.score import Candidate, ScoreSettings, check_same_views, on_background, score_objects
from eval.views.order import OrderErrors, find_better_order
from eval.views.views import Views, ViewSource
from mv3d.errors import Mv3dError
from mv3d.pixels import Frames, composite


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is compared: views on disk, by object, and what the baselines are made of."""

    truths: Mapping[str, ViewSource]
    methods: Sequence[Method]
    """Whose views lie on disk: the method under test first, baselines after it."""
    predictions: Mapping[str, Mapping[str, ViewSource]]
    """By method and object."""
    protocol: Protocol | None
    settings: ScoreSettings
    order: Order = "input-first"
    """Of the views of the method under test."""
    training: Sequence[Path] = ()
    whole: Mapping[str, Mapping[str, dict[str, float]]] = field(default_factory=dict)
    """Scores of objects as a whole, by method and object."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


def score_comparison(
    comparison: Comparison,
    networks: Sequence[PerceptualMetric],
    absent: Mapping[str, str] | None = None,
    cache_folder: Path | None = None,
) -> RunResult:
    """Score all methods and baselines; an object that one method gets wrong is counted for none.

    Raises:
        Mv3dError: if not one object could be scored, or a true orbit is among the training orbits.
    """
    _check_apart(comparison)
    left_out = dict(comparison.left_out)
    missing = dict(comparison.absent) | dict(absent or {})
    makers, methods = _make_baselines(comparison, missing)
    objects: dict[str, ObjectResult] = {}
    orders: dict[str, list[OrderErrors]] = {}
    kept: dict[str, Views] = {}

    def candidates() -> Iterator[Candidate]:
        for name in tqdm(_shared(comparison, left_out), desc="scoring", unit="object"):
            try:
                truth = _load_truth(comparison, name)
                predictions = {}
                for method in comparison.methods:
                    order = comparison.order if method.kind != "baseline" else "input-first"
                    source = comparison.predictions[method.name][name]
                    predictions[method.name] = _load_prediction(source, truth, order)
                predictions |= {label: make(name, truth) for label, make in makers.items()}
            except Mv3dError as error:
                left_out[name] = str(error)
                continue
            kept[name] = truth
            yield Candidate(name, truth, predictions)

    cache = None if cache_folder is None else ScoreCache(cache_folder, networks, comparison.settings)
    for scored in score_objects(candidates(), networks, comparison.settings, cache):
        truth = kept.pop(scored.name)
        whole = {m: comparison.whole.get(m, {}).get(scored.name, {}) for m in scored.scores}
        objects[scored.name] = ObjectResult(
            azimuths_deg=_azimuths(truth),
            input_index=truth.input_index,
            scored=_scored_views(comparison.protocol, len(truth)),
            spread=_spread(truth, comparison.settings),
            views={m: {key: as_column(v) for key, v in columns.items()} for m, columns in scored.scores.items()},
            whole={m: dict(numbers) for m, numbers in whole.items() if numbers},
        )
        for method, errors in scored.orders.items():
            orders.setdefault(method, []).append(errors)
    if not objects:
        reason = next((f"; {name}: {why}" for name, why in left_out.items() if name in comparison.truths), "")
        raise Mv3dError(f"not one object could be scored{reason}")
    return RunResult(
        protocol=describe_protocol(comparison.protocol),
        versions=describe_versions(),
        command=shlex.join(["python", "-m", "eval", *map(_without_place, sys.argv[1:])]),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        methods=[*comparison.methods, *methods],
        objects=objects,
        absent={key: why.replace(str(Path.home()), "~") for key, why in missing.items()},
        warnings=_warnings(comparison, orders),
        left_out=left_out,
    )


def describe_protocol(protocol: Protocol | None) -> dict[str, Any]:
    """What a result records about its protocol."""
    if protocol is None:
        return {
            "name": "none",
            "title": "No protocol: the given views, as they are",
            "citation": "",
            "fingerprint": "none",
            "input_counts": False,
            "settings": [],
        }
    return {
        "name": protocol.name,
        "title": protocol.title,
        "citation": protocol.citation,
        "fingerprint": protocol.fingerprint(),
        "input_counts": protocol.here.input_counts,
        "settings": protocol.described(),
    }


def _without_place(word: str) -> str:
    """Shorten an absolute path to its last name: a result is read on other machines."""
    return Path(word).name if Path(word).is_absolute() else word


def _check_apart(comparison: Comparison) -> None:
    shared = {source.path.resolve() for source in comparison.truths.values()} & {
        p.resolve() for p in comparison.training
    }
    if shared:
        raise Mv3dError(f"{min(shared)} is both truth and training; give another folder or one with a manifest")


def _shared(comparison: Comparison, left_out: dict[str, str]) -> list[str]:
    """The objects that every method has; the others are left out with the reason."""
    names = []
    for name in comparison.truths:
        lacking = [method for method, sources in comparison.predictions.items() if name not in sources]
        if lacking:
            left_out[name] = f"no prediction by {', '.join(lacking)}"
        else:
            names.append(name)
    for method, sources in comparison.predictions.items():
        for name in sources:
            if name not in comparison.truths:
                left_out.setdefault(name, f"predicted by {method}, but there is no truth")
    return names


def _make_baselines(
    comparison: Comparison, absent: dict[str, str]
) -> tuple[dict[str, Callable[[str, Views], Views]], list[Method]]:
    makers: dict[str, Callable[[str, Views], Views]] = {
        REPEATED: lambda _, truth: repeat_input(truth),
        WHITE: lambda _, truth: show_nothing(truth),
    }
    about: dict[str, dict[str, str | float]] = {}
    if comparison.training:
        try:
            training, matches = _match_training(comparison)
        except Mv3dError as error:
            absent |= {MEAN: str(error), NEAREST: str(error)}
        else:
            makers[MEAN] = lambda name, truth: mean_orbit(training, _known(name, truth, matches))
            makers[NEAREST] = lambda name, truth: nearest_orbit(matches[name], _known(name, truth, matches))
            count = len(comparison.training)
            about[MEAN] = {"training_orbits": count}
            about[NEAREST] = {"training_orbits": count, "retrieval": "mean squared error on white, over all views"}
    else:
        absent |= {key: "no training orbits were given" for key in (MEAN, NEAREST)}
    return makers, [Method(label, "baseline", about.get(label, {})) for label in makers]


def _match_training(comparison: Comparison) -> tuple[TrainingOrbits, dict[str, Match]]:
    """One pass over the training orbits, for all true orbits that are like the first that can be read."""
    inputs: dict[str, Frames] = {}
    like: Views | None = None
    for name in comparison.truths:
        try:
            truth = _load_truth(comparison, name)
        except Mv3dError:  # scoring says why
            continue
        like = like or truth
        if truth.frames.shape == like.frames.shape:
            inputs[name] = composite(truth.frames[input_view(truth)])
    if like is None:
        raise Mv3dError("no true views to compare them with")
    training = read_training_orbits(comparison.training, np.stack(list(inputs.values())), like)
    return training, dict(zip(inputs, training.matches, strict=True))


def _known(name: str, truth: Views, matches: Mapping[str, Match]) -> Views:
    if name not in matches:
        raise Mv3dError("its views differ from the others' in number or size; score them apart")
    return truth


def _load_truth(comparison: Comparison, name: str) -> Views:
    views = comparison.truths[name].load()
    if comparison.protocol is not None:
        _check_protocol(views, comparison.protocol)
        if views.input_index is None:  # truths are rendered from the input view on
            return replace(views, input_index=0)
    return views


def _load_prediction(source: ViewSource, truth: Views, order: Order) -> Views:
    views = source.load(order)
    check_same_views(views, truth)
    return views


def _check_protocol(views: Views, protocol: Protocol) -> None:
    count, side_px = protocol.here.num_views, protocol.here.resolution_px
    if len(views) != count:
        raise Mv3dError(f"{len(views)} true views; {protocol.name} has {count}")
    if views.size_px != (side_px, side_px):
        width, height = views.size_px
        raise Mv3dError(f"true views of {width}x{height} px; {protocol.name} has {side_px}x{side_px}")


def _scored_views(protocol: Protocol | None, count: int) -> list[int]:
    return list(range(count)) if protocol is None else list(protocol.scored_indices())


def _azimuths(truth: Views) -> list[float | None]:
    if truth.cameras is None:
        return [None] * len(truth)
    return [round(camera.azimuth_deg, 3) for camera in truth.cameras]


def _spread(truth: Views, settings: ScoreSettings) -> float:
    pictures = on_background(truth, settings)
    return round(float(np.square(pictures - pictures.mean(axis=0)).mean()), 8)


def _warnings(comparison: Comparison, orders: Mapping[str, list[OrderErrors]]) -> list[str]:
    found = []
    for method in comparison.methods:
        if method.kind != "baseline":
            better = find_better_order(orders[method.name])
            if better is not None:
                found.append(f"{method.name}: {better}")
    return found

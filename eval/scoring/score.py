"""Scores of predicted views against true ones, view by view, on one background.

The two must show the same views: the same number, size and, where both tell, directions (azimuth, elevation) in the
same order. Nothing is resized, reordered or aligned here; what does not match is an error, since every such repair
changes the numbers without a trace. Distances are not compared: a picture does not tell how far away its camera stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.metrics.images import SsimWindow, mean_similarity, mse, psnr, silhouette, silhouette_iou, ssim_map
from eval.metrics.names import Columns
from eval.metrics.perceptual import PerceptualMetric, compare_pictures
from eval.protocol import Protocol
from eval.scoring.cache import ScoreCache
from eval.views.order import OrderErrors, order_errors
from eval.views.views import Views
from mv3d.cameras import Camera
from mv3d.errors import Mv3dError
from mv3d.pixels import Frames, composite, from_uint8, to_uint8

ANGLE_TOLERANCE_DEG = 0.1
_VIEWS_AT_ONCE = 84  # of several objects together, so that small orbits fill the networks' batches too


@dataclass(frozen=True)
class ScoreSettings:
    """What of a protocol decides how two pictures are compared."""

    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    eight_bit: bool = False
    """Round both composites to eight bits first, as OpenCV's PSNR and scikit-image on uint8 get them."""
    ssim: SsimWindow = "gaussian"

    @classmethod
    def of(cls, protocol: Protocol) -> ScoreSettings:
        """The protocol's settings."""
        return cls(protocol.background, protocol.here.psnr == "uint8", protocol.here.ssim)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One object's true views and the views that methods predict for it."""

    name: str
    truth: Views
    predictions: dict[str, Views]


@dataclass(frozen=True, eq=False)
class ObjectScores:
    """The scores of one object's views by method, and how the views would fit in other orders."""

    name: str
    scores: dict[str, Columns]
    orders: dict[str, OrderErrors]


def score_objects(
    candidates: Iterable[Candidate],
    networks: Sequence[PerceptualMetric] = (),
    settings: ScoreSettings = ScoreSettings(),
    cache: ScoreCache | None = None,
) -> Iterator[ObjectScores]:
    """Score candidates that `check_same_views` let pass, in the order given, several at a time."""
    group: list[Candidate] = []
    for candidate in candidates:
        if group and (
            sum(len(c.truth) for c in group) + len(candidate.truth) > _VIEWS_AT_ONCE
            or candidate.truth.size_px != group[0].truth.size_px
        ):
            yield from _score_group(group, networks, settings, cache)
            group = []
        group.append(candidate)
    if group:
        yield from _score_group(group, networks, settings, cache)


def score_views(
    predicted: Views, truth: Views, networks: Sequence[PerceptualMetric] = (), settings: ScoreSettings = ScoreSettings()
) -> Columns:
    """Score one object's views.

    Raises:
        Mv3dError: if number of views, size, directions, input view or masks do not fit.
    """
    check_same_views(predicted, truth)
    (scored,) = score_objects([Candidate("", truth, {"": predicted})], networks, settings)
    return scored.scores[""]


def check_same_views(predicted: Views, truth: Views) -> None:
    """Refuse two lots of views that do not show the same.

    Raises:
        Mv3dError: naming the first difference: count, size, direction, input view, or masks that are empty or inverted.
    """
    if len(predicted) != len(truth):
        raise Mv3dError(f"{len(predicted)} predicted views and {len(truth)} true ones; predict as many")
    sizes = [f"{views.size_px[0]}x{views.size_px[1]}" for views in (predicted, truth)]
    if sizes[0] != sizes[1]:
        raise Mv3dError(f"predicted views have {sizes[0]} px, true ones {sizes[1]}; write both at one size")
    if predicted.cameras is not None and truth.cameras is not None:
        for k, (camera, true_camera) in enumerate(zip(predicted.cameras, truth.cameras, strict=True)):
            difference = _difference(camera, true_camera)
            if difference:
                raise Mv3dError(f"view {k} has {difference}; predict the truth's cameras, in their order")
    given, true = predicted.input_index, truth.input_index
    if given is not None and true is not None and given != true:
        raise Mv3dError(f"the prediction was made from view {given}, the truth names view {true}; predict from {true}")
    _check_masks(predicted, truth)


def _check_masks(predicted: Views, truth: Views) -> None:
    for name, views in (("predicted", predicted), ("true", truth)):
        empty = np.flatnonzero(~(views.frames[..., 3] > 0).any(axis=(1, 2)))
        if len(empty):
            raise Mv3dError(f"{name} view {empty[0]} is transparent everywhere; check its alpha")
    if predicted.has_alpha and truth.has_alpha:
        alpha, true_alpha = predicted.frames[..., 3], truth.frames[..., 3]
        as_is, inverted = (silhouette_iou(a, true_alpha).mean() for a in (alpha, 1 - alpha))
        if inverted > max(as_is, 0.5):
            raise Mv3dError(
                f"the predicted alpha is inverted: its silhouettes overlap the true ones by {as_is:.2f}, inverted by "
                f"{inverted:.2f}; alpha is 1 on the object"
            )


def on_background(views: Views, settings: ScoreSettings) -> Frames:
    """The pictures that are compared, (N, H, W, 3)."""
    pictures = composite(views.frames, settings.background)
    return from_uint8(to_uint8(pictures)) if settings.eight_bit else pictures


def _score_group(
    group: Sequence[Candidate], networks: Sequence[PerceptualMetric], settings: ScoreSettings, cache: ScoreCache | None
) -> Iterator[ObjectScores]:
    truths = [on_background(c.truth, settings) for c in group]
    pictures = [{method: on_background(v, settings) for method, v in c.predictions.items()} for c in group]
    known = [{m: cache.load(v, c.truth) if cache else None for m, v in c.predictions.items()} for c in group]
    # What is not known yet, by method: each method's new views of all objects go through the networks together.
    new = {m: [k for k in range(len(group)) if m in known[k] and known[k][m] is None] for m in group[0].predictions}
    learned = _compare_new(networks, truths, pictures, new)
    for k, candidate in enumerate(group):
        scores, orders = {}, {}
        for method, predicted in candidate.predictions.items():
            columns = known[k][method]
            if columns is None:
                pixels = _compare_pixels(pictures[k][method], truths[k], predicted, candidate.truth, settings)
                columns = {**pixels, **learned[method, k]}
                if cache is not None:
                    cache.save(predicted, candidate.truth, columns)
            scores[method] = columns
            orders[method] = order_errors(pictures[k][method], truths[k])
        yield ObjectScores(candidate.name, scores, orders)


def _compare_new(
    networks: Sequence[PerceptualMetric],
    truths: Sequence[Frames],
    pictures: Sequence[Mapping[str, Frames]],
    new: Mapping[str, Sequence[int]],
) -> dict[tuple[str, int], Columns]:
    """The networks' scores by method and place in the group; methods with the same new objects share the truth's."""
    found: dict[tuple[str, int], Columns] = {}
    for places in {tuple(p) for p in new.values() if p}:
        methods = [m for m, p in new.items() if tuple(p) == places]
        truth = np.concatenate([truths[k] for k in places])
        learned = compare_pictures(
            networks, truth, {m: np.concatenate([pictures[k][m] for k in places]) for m in methods}
        )
        start = 0
        for k in places:
            part = slice(start, start + len(truths[k]))
            start = part.stop
            for m in methods:
                found[m, k] = {key: values[part] for key, values in learned[m].items()}
    return found


def _compare_pixels(
    pred: Frames, true: Frames, predicted: Views, truth: Views, settings: ScoreSettings
) -> Mapping[str, NDArray[np.float64]]:
    similarity = ssim_map(pred, true, settings.ssim)
    columns = {"psnr": psnr(pred, true), "ssim": mean_similarity(similarity), "mse": mse(pred, true)}
    if truth.has_alpha:
        on_object = silhouette(truth.frames[..., 3])
        columns["psnr_object"] = psnr(pred, true, on_object)
        columns["ssim_object"] = mean_similarity(similarity, on_object)
        if predicted.has_alpha:
            columns["silhouette_iou"] = silhouette_iou(predicted.frames[..., 3], truth.frames[..., 3])
    return columns


def _difference(camera: Camera, truth: Camera) -> str | None:
    """Say in words how two cameras differ, if they do."""
    turn_deg = abs((camera.azimuth_deg - truth.azimuth_deg + 180) % 360 - 180)
    if turn_deg > ANGLE_TOLERANCE_DEG:
        return f"azimuth {camera.azimuth_deg:.1f} predicted, {truth.azimuth_deg:.1f} true"
    if abs(camera.elevation_deg - truth.elevation_deg) > ANGLE_TOLERANCE_DEG:
        return f"elevation {camera.elevation_deg:.1f} predicted, {truth.elevation_deg:.1f} true"
    return None

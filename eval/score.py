"""Scores of a predicted orbit against the true one, view by view, both on white.

The two must show the same views: the same number, size and directions (azimuth, elevation) in the same order. Nothing
is resized, reordered or aligned here; what does not match is an error, since every such repair changes the numbers
without a trace. Distances are not compared: a picture does not tell how far away its camera stood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eval.folders import find_orbits, is_orbit
from eval.metrics.images import psnr, silhouette_iou, ssim
from eval.metrics.lpips import Lpips
from mv3d.cameras import Camera
from mv3d.errors import Mv3dError
from mv3d.orbit import Frames, Orbit, load_orbit

ANGLE_TOLERANCE_DEG = 0.1

_LPIPS_BATCH = 8  # views at once: VGG at 576 px takes about 1 GB for each pair of them


@dataclass(frozen=True)
class Scores:
    """The metrics of one view, or their means; None where one could not be computed."""

    psnr: float
    ssim: float
    lpips_alex: float | None
    lpips_vgg: float | None
    silhouette_iou: float | None

    @classmethod
    def mean(cls, scores: Sequence[Scores]) -> Scores:
        """The mean of each metric; None where it is None for any of them."""
        return cls(
            float(np.mean([score.psnr for score in scores])),
            float(np.mean([score.ssim for score in scores])),
            _mean_of_known([score.lpips_alex for score in scores]),
            _mean_of_known([score.lpips_vgg for score in scores]),
            _mean_of_known([score.silhouette_iou for score in scores]),
        )


@dataclass(frozen=True)
class OrbitScores:
    """The scores of one orbit's views; ``input_index`` is the view that shows the picture it was made from."""

    views: tuple[Scores, ...]
    azimuths_deg: tuple[float, ...]
    size_px: tuple[int, int]
    """Width and height."""
    input_index: int | None

    @cached_property
    def mean(self) -> Scores:
        """The mean over all views."""
        return Scores.mean(self.views)

    @cached_property
    def mean_without_input(self) -> Scores | None:
        """The mean over the views other than the input; None if that is unknown or the only one."""
        if self.input_index is None or len(self.views) < 2:
            return None
        return Scores.mean([view for k, view in enumerate(self.views) if k != self.input_index])


@dataclass(frozen=True)
class FolderScores:
    """The scores of all objects found on both sides, by relative path, and what became of the others."""

    objects: dict[str, OrbitScores]
    missing: tuple[str, ...]
    """In the truth, without a prediction."""
    unknown: tuple[str, ...]
    """Predicted, without a truth."""
    failed: dict[str, str]
    """Could not be scored, with the reason."""


def score_orbit(predicted: Orbit, truth: Orbit, lpips: Sequence[Lpips] = ()) -> OrbitScores:
    """Score each view on white; ``lpips`` are the networks to use, the others' distances stay None.

    Raises:
        Mv3dError: if number of views, size, directions or input view differ.
    """
    _check_same_views(predicted, truth)
    pred_rgb, true_rgb = predicted.on(), truth.on()
    psnrs, ssims = psnr(pred_rgb, true_rgb), ssim(pred_rgb, true_rgb)
    distances = {network.net: lpips_distances(network, pred_rgb, true_rgb) for network in lpips}
    ious = None
    if _has_alpha(predicted) and _has_alpha(truth):
        ious = silhouette_iou(predicted.frames[..., 3], truth.frames[..., 3])
    columns = (distances.get("alex"), distances.get("vgg"), ious)
    views = tuple(
        Scores(float(psnrs[k]), float(ssims[k]), *(None if column is None else float(column[k]) for column in columns))
        for k in range(len(truth))
    )
    height, width = truth.frames.shape[1:3]
    azimuths = tuple(round(camera.azimuth_deg, 3) for camera in truth.cameras)
    return OrbitScores(views, azimuths, (width, height), _input_index(predicted, truth))


def score_folders(predicted: Path, truth: Path, lpips: Sequence[Lpips] = ()) -> FolderScores:
    """Score an orbit folder, or folders of orbit folders matched by relative path; a single orbit is called ``.``.

    Raises:
        Mv3dError: if a single orbit cannot be scored, or nothing in the two folders could.
    """
    if is_orbit(predicted) != is_orbit(truth):
        one, many = (predicted, truth) if is_orbit(predicted) else (truth, predicted)
        raise Mv3dError(f"{one} is an orbit folder and {many} is none; give two orbits or two folders of orbits")
    if is_orbit(truth):
        scores = score_orbit(load_orbit(predicted), load_orbit(truth), lpips)
        return FolderScores({".": scores}, (), (), {})
    predictions, truths = find_orbits(predicted), find_orbits(truth)
    objects, failed = {}, {}
    for name in sorted(predictions.keys() & truths.keys()):
        try:
            objects[name] = score_orbit(load_orbit(predictions[name]), load_orbit(truths[name]), lpips)
        except Mv3dError as error:
            failed[name] = str(error)
    missing, unknown = sorted(truths.keys() - predictions.keys()), sorted(predictions.keys() - truths.keys())
    if not objects:
        example = next((f"; {name}: {why}" for name, why in failed.items()), "")
        raise Mv3dError(
            f"nothing to score: of {len(truths)} orbits in {truth} {len(missing)} are not in {predicted} and "
            f"{len(failed)} do not match{example}"
        )
    return FolderScores(objects, tuple(missing), tuple(unknown), failed)


def lpips_distances(network: Lpips, pred: Frames, truth: Frames) -> NDArray[np.float32]:
    """LPIPS of pictures (N, H, W, 3) in [0, 1], (N,), on the device where the network is."""
    device = next(network.parameters()).device
    batches = []
    with torch.no_grad():
        for start in range(0, len(pred), _LPIPS_BATCH):
            pair = (torch.from_numpy(x[start : start + _LPIPS_BATCH]).to(device) for x in (pred, truth))
            batches.append(network(*(x.permute(0, 3, 1, 2) for x in pair)).cpu().numpy())
    return np.concatenate(batches)


def _check_same_views(predicted: Orbit, truth: Orbit) -> None:
    if len(predicted) != len(truth):
        raise Mv3dError(f"{len(predicted)} predicted views and {len(truth)} true ones; make the orbit with as many")
    sizes = [f"{orbit.frames.shape[2]}x{orbit.frames.shape[1]}" for orbit in (predicted, truth)]
    if sizes[0] != sizes[1]:
        raise Mv3dError(f"predicted views have {sizes[0]} px, true ones {sizes[1]}; render both at one size")
    for k, (camera, true_camera) in enumerate(zip(predicted.cameras, truth.cameras, strict=True)):
        difference = _difference(camera, true_camera)
        if difference:
            raise Mv3dError(f"view {k} has {difference}; predict the truth's cameras, in their order")


def _difference(camera: Camera, truth: Camera) -> str | None:
    """Say in words how two cameras differ, if they do."""
    turn_deg = abs((camera.azimuth_deg - truth.azimuth_deg + 180) % 360 - 180)
    if turn_deg > ANGLE_TOLERANCE_DEG:
        return f"azimuth {camera.azimuth_deg:.1f} predicted, {truth.azimuth_deg:.1f} true"
    if abs(camera.elevation_deg - truth.elevation_deg) > ANGLE_TOLERANCE_DEG:
        return f"elevation {camera.elevation_deg:.1f} predicted, {truth.elevation_deg:.1f} true"
    return None


def _input_index(predicted: Orbit, truth: Orbit) -> int | None:
    given, true = predicted.facts.input_index, truth.facts.input_index
    if given is not None and true is not None and given != true:
        raise Mv3dError(
            f"the prediction was made from view {given}, the truth names view {true}; predict from view {true}"
        )
    return true if given is None else given


def _has_alpha(orbit: Orbit) -> bool:
    return bool((orbit.frames[..., 3] < 1).any())


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None

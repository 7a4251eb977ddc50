"""Views lifted to a body: the true views' own limit, how consistent views are without any truth, and their geometry."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from eval import versions
from eval.metrics.geometry import empty_geometry, score_geometry
from eval.metrics.images import psnr, silhouette, silhouette_iou
from eval.truth.objects import load_true_mesh, render_mesh
from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.lift import LiftSettings, lift_orbit
from mv3d.mesh import Mesh
from mv3d.orbit import Facts, Orbit, load_orbit, save_orbit
from mv3d.pixels import Frames, composite
from render.sources import SourceObject

_METHOD = "hull"  # each object is lifted four times and more; a fit takes half a minute
_FEWEST_CELLS, _MOST_CELLS = 24, 96  # along the object; more than the pictures have pixels tell nothing
_CELLS_A_PIXEL, _CELLS_A_PIXEL_OF_HALF = 0.75, 0.5
_FEWEST_VIEWS = 6  # so that each half has the three that a body needs


@dataclass(frozen=True)
class LiftJob:
    """Views of one object to lift: the re-rendered views go to ``rerendered`` if given, the scores to ``scores``."""

    name: str
    views: Path
    true_views: Path
    item: SourceObject
    scores: Path
    rerendered: Path | None = None

    def is_done(self) -> bool:
        """Whether an earlier run did it."""
        return self.scores.is_file() and (self.rerendered is None or (self.rerendered / "transforms.json").is_file())


def lift_all(jobs: Sequence[LiftJob], workers: int | None = None) -> Iterator[tuple[str, dict[str, float]]]:
    """Do the jobs, side by side where there are cores, and yield each one's scores; what was done before is read."""
    from tqdm import tqdm

    todo = [job for job in jobs if not job.is_done()]
    count = min(workers or os.cpu_count() or 1, len(todo))
    with ExitStack() as stack:
        if count > 1:
            pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_one_thread)
            results = stack.enter_context(pool).map(lift_job, jobs)
        else:
            results = map(lift_job, jobs)
        for job, scores in zip(jobs, tqdm(results, total=len(jobs), desc="lifting", unit="object"), strict=True):
            yield job.name, scores


def lift_job(job: LiftJob) -> dict[str, float]:
    """Lift one object's views; returns geometry and consistency by metric."""
    if job.is_done():
        return json.loads(job.scores.read_text())
    orbit = load_orbit(job.views)
    truth = load_orbit(job.true_views)
    true_mesh = load_true_mesh(job.item, float(truth.facts.extra["object_yaw_deg"]))
    mesh = _try_to_lift(orbit, _CELLS_A_PIXEL)
    scores = empty_geometry(true_mesh) if mesh is None else score_geometry(mesh, true_mesh)
    scores |= score_consistency(orbit)
    if job.rerendered is not None:
        frames = _views_of(mesh, orbit)
        facts = Facts(input_index=truth.facts.input_index, made_by="true views lifted and re-rendered")
        save_orbit(Orbit(frames, orbit.cameras, facts), job.rerendered, overwrite=True, for_people=False)
    with whole_file(job.scores) as partial:
        partial.write_text(json.dumps(scores) + "\n")
    return scores


def score_consistency(orbit: Orbit) -> dict[str, float]:
    """How well views fit one body, without any truth: MVGBench's idea, with a lifted mesh for its splats.

    The first, third, ... view are lifted and the body is seen through the other views' cameras, and the other way
    round; ``consistency_psnr`` and ``consistency_iou`` compare these pictures with the views. Views that cannot be
    lifted leave an empty picture. ``consistency_psnr_object`` is of the first way alone (of 21 views, 11 predict 10)
    and within the silhouettes of the views that are predicted.

    Xie et al.: MVGBench, 2025 (odd and even views fitted apart and compared).
    """
    if len(orbit) < _FEWEST_VIEWS:
        return {}
    psnrs, ious, on_object = [], [], []
    for first in (0, 1):
        fitted = orbit.select(range(first, len(orbit), 2))
        held_out = orbit.select(range(1 - first, len(orbit), 2))
        seen = _views_of(_try_to_lift(fitted, _CELLS_A_PIXEL_OF_HALF), held_out)
        alpha = held_out.frames[..., 3]
        psnrs.append(psnr(composite(seen), held_out.on()))
        on_object.append(psnr(composite(seen), held_out.on(), silhouette(alpha)))
        ious.append(silhouette_iou(seen[..., 3], alpha))
    scores = {
        "consistency_psnr": float(np.concatenate(psnrs).mean()),
        "consistency_iou": float(np.concatenate(ious).mean()),
    }
    if np.isfinite(on_object[0]).any():  # a view that shows nothing has no silhouette to look within
        scores["consistency_psnr_object"] = float(np.nanmean(on_object[0]))
    return scores


def share_of_truth(scores: Mapping[str, float], of_true_views: Mapping[str, float]) -> dict[str, float]:
    """How nearly views are as consistent as true renders of the object: the ratio of their decibels on the object."""
    key = "consistency_psnr_object"
    if key not in scores or not of_true_views.get(key):
        return {}
    return {"consistency_share": scores[key] / of_true_views[key]}


def lifter_version() -> str:
    """Names what lifts and scores bodies, in folders and reports: what an older one made is not mixed in."""
    return f"{_METHOD}{versions.LIFTING}"


def _try_to_lift(orbit: Orbit, cells_a_pixel: float) -> Mesh | None:
    cells = round(orbit.frames.shape[1] * cells_a_pixel)
    try:
        return lift_orbit(orbit, LiftSettings(_METHOD, resolution=min(max(cells, _FEWEST_CELLS), _MOST_CELLS)))
    except Mv3dError:  # silhouettes that no body has
        return None


def _views_of(mesh: Mesh | None, orbit: Orbit) -> Frames:
    return np.zeros_like(orbit.frames) if mesh is None else render_mesh(mesh, orbit.cameras)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)

"""What a job will cost, from a sample of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mv3d.dataset import Entry
from render.farm.job import RenderJob, render_job
from render.farm.pool import Failure, Pool
from render.settings import Settings
from render.sources import SourceObject

_SAMPLE = 5


@dataclass(frozen=True)
class Price:
    """An estimate, and what it rests on."""

    objects: int
    frames: int
    gigabytes: float
    hours: float
    workers: int
    sampled: int
    failed: int

    def __str__(self) -> str:
        unusable = f", {self.failed} of them not usable" if self.failed else ""
        return (
            f"{self.objects} objects, {self.frames} frames: about {self.gigabytes:.2g} GB and {self.hours:.2g} hours "
            f"with {self.workers} workers (from {self.sampled} objects{unusable})"
        )


def estimate(
    objects: Sequence[SourceObject], settings: Settings, *, num_orbits: int, workers: int | None, timeout_s: float
) -> Price:
    """Render one orbit of five objects, spread evenly over the list, into a folder that is removed afterwards."""
    picks = sorted({int(k) for k in np.linspace(0, len(objects) - 1, min(_SAMPLE, len(objects))).round()})
    count = workers or os.cpu_count() or 1
    seconds, sizes, failed = [], [], 0
    with tempfile.TemporaryDirectory(prefix="mv3d-price-") as folder, Pool(render_job, 1, timeout_s) as pool:
        jobs = [RenderJob(objects[k], 0, Path(folder) / str(k), settings) for k in picks]
        for job, result in pool.run(jobs):
            if isinstance(result, Failure) or (isinstance(result, Entry) and result.failed is not None):
                failed += 1
                continue
            seconds.append(result.seconds)
            sizes.append(sum(path.stat().st_size for path in job.folder.rglob("*") if path.is_file()))
    share = len(seconds) / len(picks)
    orbits = len(objects) * num_orbits * share
    return Price(
        objects=len(objects),
        frames=round(orbits * settings.num_views),
        gigabytes=orbits * float(np.mean(sizes or [0])) / 1e9,
        hours=orbits * float(np.mean(seconds or [0])) / 3600 / count,
        workers=count,
        sampled=len(picks),
        failed=failed,
    )

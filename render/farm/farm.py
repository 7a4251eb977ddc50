"""Render many objects: resumable, and no object's failure stops the others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from mv3d.dataset import Entry
from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from render.farm.job import RenderJob, render_job
from render.farm.manifest import Manifest, entry_of
from render.farm.pool import Failure, Pool
from render.settings import Settings, check_settings
from render.sources import SourceObject


class Runner(Protocol):
    """What runs jobs: `Pool` on this machine, `RayCluster` on many."""

    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield jobs with their results or `Failure`, in the order they finish."""
        ...


def render_sources(
    objects: Sequence[SourceObject],
    out: Path,
    settings: Settings,
    *,
    num_orbits: int = 1,
    workers: int | None = None,
    timeout_s: float = 300.0,
    ray_address: str | None = None,
    manifest_name: str = "manifest.jsonl",
) -> list[Entry]:
    """Render ``num_orbits`` orbits of every object to ``out/<object_id>/<k>/`` and write ``out/manifest.jsonl``.

    First orbits come before second ones, so that training can begin early. Orbits that are there already are kept;
    objects that failed before are tried again. Runs that write to one ``out`` at the same time must have different
    objects (`shard_of`) and manifests. Returns the manifest's entries in the order of ``objects``.

    Args:
        objects: what to render.
        out: the folder; with ``ray_address``, one that all nodes see.
        settings: how.
        num_orbits: of each object.
        workers: processes on this machine; one per core if None.
        timeout_s: for one orbit.
        ray_address: a Ray cluster that does the work instead; ``local`` starts one here.
        manifest_name: another one for each run that writes to ``out``.

    Raises:
        Mv3dError: if ``out`` holds orbits made with other settings.
    """
    check_settings(out, settings)
    _sweep_partials(out, objects)
    manifest = Manifest(out, objects, manifest_name)
    passes = [
        [RenderJob(item, k, out / item.object_id / str(k), settings) for item in objects] for k in range(num_orbits)
    ]
    from tqdm import tqdm

    try:
        with _runner(workers, timeout_s, ray_address) as runner:
            for k, jobs in enumerate(passes):
                todo = [j for j in jobs if not (j.folder / "transforms.json").is_file()]
                if k:  # what failed in this run's first pass would fail again
                    todo = [j for j in todo if manifest.entry(j.item).failed is None]
                bar = tqdm(
                    total=len(jobs), initial=len(jobs) - len(todo), unit="orbit", desc=f"orbit {k}", smoothing=0.05
                )
                with bar:
                    for job, result in runner.run(todo):
                        manifest.add(_entry(job, result))
                        _keep_log(out, job, result)
                        bar.update()
    finally:
        _sweep_partials(out, objects)
        manifest.save()
    return manifest.entries()


def parse_shard(text: str) -> tuple[int, int]:
    """``2/8`` is the third of eight.

    Raises:
        Mv3dError: if it is no share.
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise Mv3dError(f"{text} is no share: give I/N, with I from 0 to N - 1", argument="shard")
    return int(index), int(count)


def shard_of(objects: Sequence[SourceObject], index: int, count: int) -> list[SourceObject]:
    """The ``index``-th of ``count`` shares, counted from 0: every ``count``-th object."""
    return list(objects[index::count])


def _runner(workers: int | None, timeout_s: float, ray_address: str | None) -> AbstractContextManager[Runner]:
    if ray_address is None:
        return Pool(render_job, workers or os.cpu_count() or 1, timeout_s)
    from render.farm.cluster import RayCluster

    return RayCluster(render_job, ray_address, timeout_s)


def _entry(job: RenderJob, result: Entry | Failure) -> Entry:
    return entry_of(job.item, failed=result.reason) if isinstance(result, Failure) else result


def _keep_log(out: Path, job: RenderJob, result: Entry | Failure) -> None:
    path = out / "logs" / f"{job.item.object_id}.log"
    if isinstance(result, Failure):
        with whole_file(path) as partial:
            partial.write_text(f"{result.reason}\n{result.log}")
    else:
        path.unlink(missing_ok=True)


def _sweep_partials(out: Path, objects: Sequence[SourceObject]) -> None:
    """Remove what killed workers left behind, of these objects alone: others may be in another run's hands."""
    for folder in {out / item.object_id for item in objects}:
        for partial in folder.glob(".partial-*"):
            shutil.rmtree(partial, ignore_errors=True)

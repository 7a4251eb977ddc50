"""Render many objects: one process per core, resumable, and no object's failure stops the others."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mv3d.cameras import DEFAULT_FOV_DEG
from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from render.manifest import Entry, Manifest
from render.pool import Pool
from render.sources import SourceObject

_SETTINGS_NAME = "settings.json"


@dataclass(frozen=True)
class Settings:
    """How objects are rendered; every orbit of a folder shares it."""

    num_views: int = 21
    size_px: int = 128
    seed: int = 0
    elevation_low_deg: float = -5.0
    elevation_high_deg: float = 30.0
    yaw_deg: float | None = None
    """The object's turn about the vertical; drawn per orbit if None."""
    fov_deg: float = DEFAULT_FOV_DEG
    samples_per_side: int = 2

    def __post_init__(self) -> None:
        if not (1 <= self.num_views <= 1000 and 8 <= self.size_px <= 4096):
            raise Mv3dError(
                f"{self.num_views} views of {self.size_px} px: 1 to 1000 views of 8 to 4096 px are supported"
            )
        if not -89 <= self.elevation_low_deg <= self.elevation_high_deg <= 89:
            raise Mv3dError(
                f"elevation {self.elevation_low_deg} {self.elevation_high_deg}: give LOW HIGH within -89 89"
            )


@dataclass(frozen=True)
class Job:
    """One orbit to render: the ``index``-th of ``item``, into ``folder``."""

    item: SourceObject
    index: int
    folder: Path
    settings: Settings


def orbit_seed(object_id: str, index: int, seed: int) -> int:
    """The seed of an orbit, the same wherever and in whatever order it is rendered."""
    return int.from_bytes(hashlib.sha256(f"{object_id}/{index}/{seed}".encode()).digest()[:4], "big")


def render_job(job: Job) -> Entry:
    """Load, render and save one orbit; return what the manifest records (an unusable object is an entry with a reason).

    This is what worker processes run.
    """
    import numpy as np

    from mv3d.cameras import static_orbit
    from mv3d.orbit import Facts, Orbit, save_orbit
    from render import VERSION
    from render.errors import Unusable
    from render.lights import make_lights
    from render.raycast import render_orbit
    from render.scene import make_scene
    from render.split import identify, split_of

    start = time.perf_counter()
    item, settings = job.item, job.settings
    try:
        scene = make_scene(item.load(), linear_colours=item.linear_colours)
    except Unusable as reason:
        return Entry.of(item, failed=str(reason))
    loaded = time.perf_counter()
    geometry_hash = identify(item, scene)
    seed = orbit_seed(item.object_id, job.index, settings.seed)
    rng = np.random.default_rng(seed)
    elevation_deg = float(rng.uniform(settings.elevation_low_deg, settings.elevation_high_deg))
    drawn_yaw_deg = float(rng.uniform(0, 360))
    yaw_deg = drawn_yaw_deg if settings.yaw_deg is None else settings.yaw_deg
    radius = scene.radius / float(np.sin(np.radians(settings.fov_deg / 2)))
    cameras = static_orbit(
        settings.num_views, elevation_deg, radius, size_px=settings.size_px, fov_deg=settings.fov_deg
    )
    frames = render_orbit(scene.turned(yaw_deg), cameras, make_lights(seed), settings.samples_per_side)
    rendered = time.perf_counter()
    split = split_of(geometry_hash)
    extra: dict[str, str | float | int] = {
        "name": item.name,
        "category": item.category or "",
        "split": split,
        "geometry_hash": geometry_hash,
        "object_yaw_deg": round(yaw_deg, 6),
    }
    facts = Facts(
        input_index=0,
        source=item.object_id,
        licence=item.licence,
        attribution=item.attribution,
        made_by=f"mv3d raycast {VERSION}",
        seed=seed,
        seconds={"load": round(loaded - start, 3), "render": round(rendered - loaded, 3)},
        extra=extra,
    )
    save_orbit(Orbit(frames, cameras, facts), job.folder, for_people=False)
    return Entry.of(
        item, split=split, geometry_hash=geometry_hash, seconds=round(time.perf_counter() - start, 3), orbits=1
    )


def render_sources(
    objects: Sequence[SourceObject],
    out: Path,
    settings: Settings,
    *,
    num_orbits: int = 1,
    workers: int | None = None,
    timeout_s: float = 300.0,
) -> list[Entry]:
    """Render ``num_orbits`` orbits of every object to ``out/<object_id>/<k>/`` and write ``out/manifest.jsonl``.

    First orbits come before second ones, so that training can begin early. Orbits that are there already are kept;
    objects that failed before are tried again. One run at a time may write to ``out``. Returns the manifest's entries
    in the order of ``objects``.

    Raises:
        Mv3dError: if ``out`` holds orbits made with other settings.
    """
    _check_settings(out, settings)
    _sweep_partials(out)
    manifest = Manifest(out, objects)
    passes = [[Job(item, k, out / item.object_id / str(k), settings) for item in objects] for k in range(num_orbits)]
    from tqdm import tqdm

    try:
        with Pool(render_job, workers or os.cpu_count() or 1, timeout_s) as pool:
            for k, jobs in enumerate(passes):
                todo = [j for j in jobs if not (j.folder / "transforms.json").is_file()]
                if k:  # what failed in this run's first pass would fail again
                    todo = [j for j in todo if manifest.entry(j.item).failed is None]
                bar = tqdm(
                    total=len(jobs), initial=len(jobs) - len(todo), unit="orbit", desc=f"orbit {k}", smoothing=0.05
                )
                with bar:
                    for job, result in pool.run(todo):
                        entry = result if isinstance(result, Entry) else Entry.of(job.item, failed=result)
                        manifest.add(entry)
                        bar.update()
    finally:
        _sweep_partials(out)
        manifest.save()
    return manifest.entries()


def _check_settings(out: Path, settings: Settings) -> None:
    path = out / _SETTINGS_NAME
    if path.is_file():
        made_with = json.loads(path.read_text())
        changed = [
            f"{key} {made_with.get(key)} -> {value}"
            for key, value in asdict(settings).items()
            if made_with.get(key) != value
        ]
        if changed:
            raise Mv3dError(f"{out} was rendered with other settings ({', '.join(changed)}); choose another --out")
        return
    with whole_file(path) as partial:
        partial.write_text(json.dumps(asdict(settings), indent=1) + "\n")


def _sweep_partials(out: Path) -> None:
    """Remove what killed workers left behind."""
    for partial in out.glob("**/.partial-*"):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)

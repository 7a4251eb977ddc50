"""One orbit of one object: the unit of work, the same wherever and in whatever order it is done."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from mv3d.dataset import Entry
from render.farm.manifest import entry_of, entry_on_disk
from render.settings import Settings
from render.sources import SourceObject


@dataclass(frozen=True)
class RenderJob:
    """One orbit to render: the ``index``-th of ``item``, into ``folder``."""

    item: SourceObject
    index: int
    folder: Path
    settings: Settings


def orbit_seed(object_id: str, index: int, seed: int) -> int:
    """The seed of an orbit."""
    return int.from_bytes(hashlib.sha256(f"{object_id}/{index}/{seed}".encode()).digest()[:4], "big")


def render_job(job: RenderJob) -> Entry:
    """Load, render and save one orbit; return what the manifest records (an unusable object is an entry with a reason).

    An orbit that is there already is left as it is: on a cluster, work may be given out twice. This is what worker
    processes run.
    """
    import numpy as np

    from mv3d.orbit import Facts, Orbit, save_orbit
    from render.camera_paths import draw_cameras
    from render.errors import Unusable
    from render.farm.split import identify, side_of
    from render.scene.lights import make_lights
    from render.scene.passes import draw_passes
    from render.scene.scene import make_scene
    from render.sources.loading import lacking_files

    start = time.perf_counter()
    item, settings = job.item, job.settings
    if (job.folder / "transforms.json").is_file():
        return entry_on_disk(item, [job.folder])
    try:
        source = item.load()
        scene = make_scene(source, linear_colours=item.linear_colours)
        geometry_hash = identify(item, scene)
        split = side_of(item, geometry_hash)
    except Unusable as reason:
        return entry_of(item, failed=str(reason))
    loaded = time.perf_counter()
    seed = orbit_seed(item.object_id, job.index, settings.seed)
    rng = np.random.default_rng(seed)
    elevation_deg = float(rng.uniform(settings.elevation_low_deg, settings.elevation_high_deg))
    drawn_yaw_deg = float(rng.uniform(0, 360))
    yaw_deg = drawn_yaw_deg if settings.yaw_deg is None else settings.yaw_deg
    radius = scene.radius / float(np.sin(np.radians(settings.fov_deg / 2)))
    cameras = draw_cameras(settings, rng, elevation_deg, radius)
    turned = scene.turned(yaw_deg)
    if settings.renderer == "cycles":
        from render.scene import cycles

        frames = cycles.render_orbit(
            item, turned, cameras, _surroundings(settings, seed) or make_lights(seed), samples=settings.samples
        )
    else:
        from render.scene import raycast

        frames = raycast.render_orbit(turned, cameras, make_lights(seed), settings.samples_per_side)
    more = draw_passes(turned, cameras, settings.passes, settings.samples_per_side)
    rendered = time.perf_counter()
    extra: dict[str, str | float | int] = {
        "name": item.name,
        "category": item.category or "",
        "split": split,
        "geometry_hash": geometry_hash,
        "object_yaw_deg": round(yaw_deg, 6),
        "triangles": len(scene.corners),
        "lacking_files": len(lacking_files(source)),
    }
    facts = Facts(
        input_index=0,
        source=item.object_id,
        licence=item.licence,
        attribution=item.attribution,
        made_by=_made_by(settings),
        seed=seed,
        seconds={"load": round(loaded - start, 3), "render": round(rendered - loaded, 3)},
        extra=extra,
    )
    save_orbit(Orbit(frames, cameras, facts), job.folder, for_people=False, more=more)
    return entry_of(
        item, split=split, geometry_hash=geometry_hash, seconds=round(time.perf_counter() - start, 3), orbits=1
    )


def _made_by(settings: Settings) -> str:
    from render import VERSION

    samples = f", {settings.samples} samples" if settings.renderer == "cycles" else ""
    return f"mv3d {settings.renderer} {VERSION}{samples}"


def _surroundings(settings: Settings, seed: int) -> dict | None:
    """One of the pictures all around, turned, both drawn from the seed."""
    pictures = settings.environment_pictures()
    if not pictures:
        return None
    return {"environment": str(pictures[seed % len(pictures)]), "turn_deg": seed // len(pictures) % 360}

"""Depth maps for orbits that are rendered already: the same object, turned the same way, seen by the same cameras."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mv3d.cameras import Camera
from mv3d.depth import DEPTH_FOLDER, Depth, save_depth
from mv3d.orbit import load_orbit
from render.farm.pool import Failure, Pool
from render.scene.passes import trace_geometry
from render.scene.scene import RenderScene, make_scene
from render.sources import SourceObject


@dataclass(frozen=True)
class DepthJob:
    """Orbits of one object that lack their depth maps."""

    item: SourceObject
    folders: tuple[Path, ...]


def render_depth(scene: RenderScene, cameras: Sequence[Camera]) -> Depth:
    """Distance (N, H, W) along each camera's viewing axis to the first surface behind each pixel centre; 0 for none.

    See-through surfaces count as surfaces.
    """
    return np.stack([trace_geometry(scene, camera)[0] for camera in cameras])


def depth_job(job: DepthJob) -> None:
    """Render and save the depth maps of one object's orbits; what worker processes run."""
    scene = make_scene(job.item.load(), linear_colours=job.item.linear_colours)
    for folder in job.folders:
        orbit = load_orbit(folder)
        turned = scene.turned(float(orbit.facts.extra["object_yaw_deg"]))
        save_depth(render_depth(turned, orbit.cameras), folder)


def add_depth(
    objects: Sequence[SourceObject], out: Path, *, workers: int | None = None, timeout_s: float = 300.0
) -> dict[str, str]:
    """Add depth maps to all orbits of ``objects`` in ``out`` that have none; returns failures by object id."""
    from tqdm import tqdm

    jobs = []
    for item in objects:
        rendered = sorted(path.parent for path in (out / item.object_id).glob("[0-9]*/transforms.json"))
        lacking = tuple(folder for folder in rendered if not (folder / DEPTH_FOLDER).is_dir())
        if lacking:
            jobs.append(DepthJob(item, lacking))
    failed = {}
    with Pool(depth_job, workers or os.cpu_count() or 1, timeout_s) as pool:
        for job, result in tqdm(pool.run(jobs), total=len(jobs), unit="object", desc="depth"):
            if isinstance(result, Failure):
                failed[job.item.object_id] = result.reason
    return failed

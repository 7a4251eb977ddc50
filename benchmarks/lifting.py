"""Lift true orbits of held-out objects and measure what comes out: time, geometry, and views from elsewhere.

    python -m benchmarks.lifting FURNITURE --work runs/lifting

Each object of the test split is rendered twice at 256 px with 21 views, on a static orbit (10 to 20 degrees) and on
SV3D's sine orbit (+-30 degrees), and from 16 more cameras at elevations that neither orbit has. Renders are kept in
``--work``; so are results, by the lifter's version (`eval.versions`).

Besides the lifter's own methods there are ``tsdf``, the renderer's depth maps of the same views fused on the same grid,
which bounds what a lifter of these views can reach, and ``nerfstudio``, as ``mv3d lift`` runs it where it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import fusion
from eval import versions
from eval.metrics.geometry import score_geometry
from eval.metrics.images import psnr, silhouette_iou
from eval.truth.objects import list_objects, load_true_mesh, render_mesh
from mv3d.blender import render_in_blender
from mv3d.cameras import Camera, orbit_through, sine_orbit, static_orbit
from mv3d.depth import DEPTH_FOLDER, load_depth, save_depth
from mv3d.errors import Mv3dError
from mv3d.export import save_mesh
from mv3d.lift import LiftSettings, lift_orbit
from mv3d.lift.nerfstudio import lift_with_nerfstudio
from mv3d.mesh import Mesh
from mv3d.orbit import Facts, Orbit, load_orbit, make_sheet, save_orbit
from mv3d.pixels import composite, to_uint8
from render.farm.depth import render_depth
from render.scene.lights import make_lights
from render.scene.raycast import render_orbit
from render.scene.scene import make_scene
from render.sources import SourceObject

SIZE_PX, NUM_VIEWS = 256, 21
ORBITS = ("static", "sine")
METHODS = ("field", "hull", "tsdf", "nerfstudio")
DRAWN = (1, 12)
"""Of the novel views, on the sheet."""
NOVEL_ELEVATIONS_DEG = (-10.0, 45.0)
_METRICS = (
    "seconds",
    "cpu_seconds",
    "chamfer",
    "volume_iou",
    "f_score_10",
    "normal_consistency",
    "novel_psnr",
    "novel_iou",
    "faces",
)


def cameras_of(name: str, seed: int, radius: float) -> tuple[Camera, ...]:
    """The cameras of one of `ORBITS`, or the ``novel`` ones."""
    if name == "novel":
        azimuths = np.tile(np.arange(8) * 45.0 + 20, len(NOVEL_ELEVATIONS_DEG))
        return orbit_through(azimuths, np.repeat(NOVEL_ELEVATIONS_DEG, 8), radius, size_px=SIZE_PX)
    if name == "static":
        elevation_deg = float(np.random.default_rng(seed).uniform(10, 20))
        return static_orbit(NUM_VIEWS, elevation_deg, radius, size_px=SIZE_PX)
    return sine_orbit(NUM_VIEWS, 0.0, 30.0, radius=radius, size_px=SIZE_PX)


def render_object(item: SourceObject, folder: Path, seed: int) -> None:
    """Render an object's orbits and novel views; what is there stays."""
    if (folder / "novel" / "transforms.json").is_file():
        return
    scene = make_scene(item.load(), linear_colours=item.linear_colours)
    radius = scene.radius / float(np.sin(np.radians(33.8 / 2)))
    for name in (*ORBITS, "novel"):
        cameras = cameras_of(name, seed, radius)
        frames = render_orbit(scene, cameras, make_lights(seed))
        facts = Facts(source=item.object_id, extra={"object_yaw_deg": 0.0})
        save_orbit(Orbit(frames, cameras, facts), folder / name, for_people=False, overwrite=True)


def add_depth(item: SourceObject, folder: Path) -> None:
    """Render the depth maps of an object's orbits; what is there stays."""
    lacking = [name for name in ORBITS if not (folder / name / DEPTH_FOLDER).is_dir()]
    if lacking:
        scene = make_scene(item.load(), linear_colours=item.linear_colours)
        for name in lacking:
            save_depth(render_depth(scene, load_orbit(folder / name).cameras), folder / name)


def lift(method: str, folder: Path, nerfstudio_steps: int) -> Mesh:
    """Lift the orbit in a folder by one of `METHODS`."""
    orbit = load_orbit(folder)
    if method == "tsdf":
        depth = load_depth(folder)
        assert depth is not None
        return fusion.lift_true_depth(orbit, depth, LiftSettings())
    if method == "nerfstudio":
        return lift_with_nerfstudio(orbit, steps=nerfstudio_steps)
    return lift_orbit(orbit, LiftSettings(method="hull" if method == "hull" else "field"))


def version_of(method: str, nerfstudio_steps: int) -> str:
    """What a method's results depend on."""
    if method == "tsdf":
        return f"{versions.LIFTING}-{fusion.VERSION}"
    return f"{versions.LIFTING}" + (f"-{nerfstudio_steps}" if method == "nerfstudio" else "")


def cpu_seconds_so_far() -> float:
    """Of this process and of those that it waited for."""
    return sum(os.times()[:4])


def measure(
    item: SourceObject, folder: Path, name: str, method: str, nerfstudio_steps: int, out: Path
) -> dict[str, float]:
    """Lift one orbit and score the mesh."""
    if out.with_suffix(".json").is_file():
        return json.loads(out.with_suffix(".json").read_text())
    novel = load_orbit(folder / "novel")
    started, cpu_started = time.perf_counter(), cpu_seconds_so_far()
    mesh = lift(method, folder / name, nerfstudio_steps)
    seconds, cpu_seconds = time.perf_counter() - started, cpu_seconds_so_far() - cpu_started
    out.parent.mkdir(parents=True, exist_ok=True)
    save_mesh(mesh, out.with_suffix(".glb"))
    true = load_true_mesh(item, 0.0)
    seen = render_mesh(mesh, novel.cameras)
    scores = score_geometry(mesh, true) | {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "faces": float(len(mesh.faces)),
        "novel_psnr": float(np.mean(psnr(composite(seen), novel.on()))),
        "novel_iou": float(np.mean(silhouette_iou(seen[..., 3], novel.frames[..., 3]))),
    }
    out.with_suffix(".json").write_text(json.dumps(scores) + "\n")
    return scores


def draw(mesh: Path, novel: Orbit) -> NDArray[np.uint8]:
    """Two true novel views, each with Blender's view of the mesh beside it."""
    seen = render_in_blender(mesh, [novel.cameras[k] for k in DRAWN])
    pairs = [np.concatenate([novel.on()[k], composite(view)], axis=1) for k, view in zip(DRAWN, seen, strict=True)]
    return to_uint8(np.concatenate(pairs, axis=1))


def main() -> None:
    """Print one table per orbit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["field", "hull"], choices=METHODS)
    parser.add_argument("--orbits", nargs="+", default=list(ORBITS), choices=ORBITS)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--nerfstudio-steps", type=int, default=500, help="of its training")
    parser.add_argument("--sheet", type=Path, help="draw true novel views beside Blender's views of the meshes")
    options = parser.parse_args()
    items = sorted(list_objects(options.objects, "test", options.work), key=lambda item: item.object_id)
    order = np.random.default_rng(0).permutation(len(items))[: options.count]
    tables: dict[tuple[str, str], list[dict[str, float]]] = {}
    rows = []
    for seed in order:
        item = items[seed]
        folder = options.work / "views" / item.object_id
        render_object(item, folder, int(seed))
        if "tsdf" in options.methods:
            add_depth(item, folder)
        for method in options.methods:
            version = version_of(method, options.nerfstudio_steps)
            for name in options.orbits:
                out = options.work / f"{method}-{version}" / name / item.object_id
                try:
                    scores = measure(item, folder, name, method, options.nerfstudio_steps, out)
                except Mv3dError as error:
                    print(f"{item.object_id} {method} {name}: {error}", flush=True)
                    continue
                tables.setdefault((method, name), []).append(scores)
                if options.sheet:
                    rows.append(draw(out.with_suffix(".glb"), load_orbit(folder / "novel")))
                print(item.object_id, method, name, *(f"{k} {scores[k]:.4g}" for k in _METRICS), flush=True)
    if options.sheet:
        Image.fromarray(make_sheet(np.stack(rows), columns=2)).save(options.sheet, quality=80)
    for (method, name), measured in tables.items():
        columns = (
            f"{key} {np.median([row[key] for row in measured]):.4g}/{np.mean([row[key] for row in measured]):.4g}"
            for key in _METRICS
        )
        print(f"{method} {name} ({len(measured)} objects), median/mean:", *columns)


if __name__ == "__main__":
    main()

"""Meshes as an artist would judge them: a table, and a sheet of them in Blender.

    python -m benchmarks.meshes assets --out runs/picture_meshes --sheet runs/picture_meshes.jpg
    python -m benchmarks.meshes runs/lifting/views --orbits --out runs/orbit_meshes --sheet runs/orbit_meshes.jpg

Of pictures, an orbit folder with its mesh is made of every one; of a folder of orbits (``--orbits``), every one is
lifted. Meshes that are there already are kept and measured anew, but for their seconds, which are kept beside them.
Prints a Markdown table (`benchmarks.mesh_measurements`). The sheet has a row for each mesh: the picture, then the mesh
under Blender's light as the picture's camera sees it, from the side, and from behind.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from math import isnan, nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.mesh_measurements import HEADER, MeshMeasurements, measure, median
from mv3d.blender import RenderSettings, render_in_blender
from mv3d.export import load_mesh, save_mesh
from mv3d.files import whole_file
from mv3d.jobs import make_orbits, plan_jobs
from mv3d.lift import LiftSettings, lift_orbit
from mv3d.options import OrbitOptions
from mv3d.orbit import Orbit, load_orbit, make_sheet
from mv3d.pixels import composite, resize, to_uint8

_SHOWN_PX = 256
_SHARES = (0.0, 0.27, 0.5)
"""Of the way around, on the sheet."""


def cpu_seconds_so_far() -> float:
    """Of this process and of those that it waited for."""
    return sum(os.times()[:4])


def meshes_of_pictures(pictures: list[Path], out: Path) -> Iterator[tuple[str, Path, Orbit, float]]:
    """The name, the mesh, the orbit and the CPU seconds of every picture."""
    started = cpu_seconds_so_far()
    for result in make_orbits(plan_jobs(pictures, out), OrbitOptions(mesh=True), keep_existing=True):
        spent = nan if result.kept else cpu_seconds_so_far() - started
        if result.error or result.mesh is None:
            print(f"{result.job.picture.name}: {result.error}", flush=True)
        else:
            yield result.job.picture.stem, result.mesh, load_orbit(result.job.folder), spent
        started = cpu_seconds_so_far()


def meshes_of_orbits(folders: list[Path], out: Path) -> Iterator[tuple[str, Path, Orbit, float]]:
    """The same of every orbit below some folders, lifted; ``out`` mirrors them."""
    for root in folders:
        for folder in sorted(path.parent for path in root.rglob("transforms.json")):
            name = str(folder.relative_to(root))
            mesh, orbit = out / f"{name}.glb", load_orbit(folder)
            spent = nan
            if not mesh.is_file():
                started = cpu_seconds_so_far()
                lifted = lift_orbit(orbit, LiftSettings())
                spent = cpu_seconds_so_far() - started
                mesh.parent.mkdir(parents=True, exist_ok=True)
                save_mesh(lifted, mesh)
            yield name, mesh, orbit, spent


def measure_kept(mesh: Path, orbit: Orbit, cpu_seconds: float) -> MeshMeasurements:
    """Measure a mesh; the seconds of one that was there already are those of when it was made, if they were kept."""
    kept = mesh.with_suffix(".json")
    if not isnan(cpu_seconds):
        kept.write_text(json.dumps({"cpu_seconds": cpu_seconds}) + "\n")
    elif kept.is_file():
        cpu_seconds = json.loads(kept.read_text())["cpu_seconds"]
    return measure(load_mesh(mesh), orbit, cpu_seconds)


def draw(mesh: Path, orbit: Orbit) -> NDArray[np.uint8]:
    """A row of the sheet."""
    given = orbit.facts.input_index or 0
    views = [(given + round(share * len(orbit))) % len(orbit) for share in _SHARES]
    cameras = [orbit.cameras[k].resized(_SHOWN_PX, _SHOWN_PX) for k in views]
    seen = render_in_blender(mesh, cameras, RenderSettings(shading="lit"))
    picture = resize(orbit.frames[given] if orbit.picture is None else orbit.picture, _SHOWN_PX, _SHOWN_PX)
    return to_uint8(np.concatenate([composite(picture), *composite(seen)], axis=1))


def main() -> None:
    """Make the meshes, print the table, draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", type=Path, nargs="+", help="pictures or folders of them; or of orbits")
    parser.add_argument("--orbits", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    print(HEADER)
    measured, rows = [], []
    for name, mesh, orbit, spent in (meshes_of_orbits if options.orbits else meshes_of_pictures)(
        options.given, options.out
    ):
        measured.append(measure_kept(mesh, orbit, spent))
        print(measured[-1].as_row(name), flush=True)
        if options.sheet:
            rows.append(draw(mesh, orbit))
    if measured:
        print(median(measured).as_row("median"))
    if rows:
        with whole_file(options.sheet) as partial:
            Image.fromarray(make_sheet(np.stack(rows), columns=2)).save(partial, quality=80, optimize=True)


if __name__ == "__main__":
    main()

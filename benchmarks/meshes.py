"""Lift every orbit of a folder and show what comes out beside the views it came from.

    mv3d orbit assets -o runs/pictures --elevation 12
    python -m benchmarks.meshes runs/pictures --sheet runs/meshes.jpg

One row an orbit: the picture, four of its views, and the mesh seen from the same cameras. Meshes are saved beside the
orbits as ``NAME.glb``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.metrics.images import silhouette_iou
from eval.truth.objects import render_mesh
from mv3d.export import save_mesh
from mv3d.files import whole_file
from mv3d.lift import LiftSettings, lift_orbit
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit, load_orbit, make_sheet
from mv3d.pixels import composite, to_uint8

SHOWN = (3, 8, 13, 18)
"""Of 21 views: right of the picture, behind to the right, behind to the left, left."""


def measure(orbit: Orbit, out: Path) -> tuple[NDArray[np.uint8], str]:
    """Lift an orbit; returns its row of the sheet and what was measured, in words."""
    started, cpu_started = time.perf_counter(), time.process_time()
    mesh = lift_orbit(orbit, LiftSettings())
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    save_mesh(mesh, out)
    seen = render_mesh(mesh, orbit.cameras)
    iou = float(np.mean(silhouette_iou(seen[..., 3], orbit.frames[..., 3])))
    closed = "closed" if mesh.is_watertight else "open"
    line = f"{len(mesh.faces)} faces, {closed}, IoU with its views {iou:.3f}, {seconds:.0f} s ({cpu_seconds:.0f} CPU)"
    return _row(orbit, mesh), line


def _row(orbit: Orbit, mesh: Mesh) -> NDArray[np.uint8]:
    shown = [k for k in SHOWN if k < len(orbit)]
    views = composite(orbit.frames[[orbit.facts.input_index or 0, *shown]])
    meshes = composite(render_mesh(mesh, [orbit.cameras[k] for k in shown]))
    return to_uint8(np.concatenate([*views, *meshes], axis=1))


def main() -> None:
    """Print one line an orbit, and draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("orbits", type=Path, help="a folder of orbit folders")
    parser.add_argument("--sheet", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for folder in sorted(path.parent for path in options.orbits.glob("*/transforms.json")):
        row, line = measure(load_orbit(folder), folder.with_suffix(".glb"))
        rows.append(row)
        print(f"{folder.name}: {line}", flush=True)
    with whole_file(options.sheet) as partial:
        Image.fromarray(make_sheet(np.stack(rows), columns=2)).save(partial, quality=80, optimize=True)


if __name__ == "__main__":
    main()

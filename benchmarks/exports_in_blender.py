"""Open every exported format in Blender and compare it with the orbit it was made from, view by view.

    python benchmarks/exports_in_blender.py ORBIT [ORBIT ...]

Prints for each orbit and format the silhouettes' IoU over all cameras, and the median difference of colours. The .blend
is rendered with the cameras that are in it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from mv3d.blender import render_in_blender, run_in_blender
from mv3d.export import export_source, save_mesh
from mv3d.frame_files import load_frame
from mv3d.lift import lift_orbit
from mv3d.orbit import Orbit, load_orbit, save_orbit
from mv3d.pixels import Frames

OPENER = Path(__file__).parents[1] / "tests" / "mv3d" / "open_blend.py"


def main(folders: list[str]) -> None:
    """Lift, export, open and print."""
    for folder in folders:
        with tempfile.TemporaryDirectory() as place:
            orbit = load_orbit(Path(folder))
            source = Path(place) / "object"
            save_orbit(orbit, source, for_people=False)
            save_mesh(lift_orbit(orbit), source / "mesh.glb")
            for suffix in (".glb", ".obj", ".ply", ".stl", ".usda", ".usdc", ".usdz", ".blend"):
                path = Path(place) / f"out{suffix}"
                export_source(source, path)
                pictures = _render_blend(path) if suffix == ".blend" else render_in_blender(path, orbit.cameras)
                _print(folder, suffix, pictures, orbit)


def _render_blend(path: Path) -> Frames:
    out = path.with_name("rendered")
    out.mkdir()
    run_in_blender(OPENER, {"blend": str(path), "out": str(out), "flat": True, "percent": 100}, out)
    return np.stack([load_frame(picture) for picture in sorted(out.glob("*.png"))])


def _print(folder: str, suffix: str, pictures: Frames, orbit: Orbit) -> None:
    there, wanted = pictures[..., 3] >= 0.5, orbit.frames[..., 3] >= 0.5
    iou = (there & wanted).sum(axis=(1, 2)) / (there | wanted).sum(axis=(1, 2))
    inside = (pictures[..., 3] > 0.99) & (orbit.frames[..., 3] > 0.99)
    colour = np.median(np.abs(pictures[..., :3] - orbit.frames[..., :3])[inside])
    print(f"{folder} {suffix}: IoU min {iou.min():.4f} mean {iou.mean():.4f} colour {colour:.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

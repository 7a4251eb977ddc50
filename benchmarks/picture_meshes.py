"""Meshes of pictures as an artist would judge them: charts, texture, parts, handles, and how well they show it.

    python -m benchmarks.picture_meshes assets --out runs/picture_meshes

Makes an orbit folder with its mesh of every picture below the folder (those that are there already are kept), and
prints a Markdown table. ``PSNR`` compares the mesh, seen unlit by the picture's own camera at 512 px, with the picture:
inside the picture's silhouette, with white where the mesh is not there.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import trimesh
from scipy import ndimage

from mv3d.export import load_mesh
from mv3d.jobs import make_orbits, plan_jobs
from mv3d.lift.raster import rasterize
from mv3d.mesh import Mesh
from mv3d.options import OrbitOptions
from mv3d.orbit import Orbit, load_orbit
from mv3d.pixels import composite, resize

_SIZE_PX = 512


@dataclass(frozen=True)
class MeshMeasurements:
    """What is measured of one mesh."""

    faces: int
    parts: int
    handles: int
    closed: bool
    charts: int
    used: float
    """Share of the texture that shows somewhere."""
    texture_px: int
    psnr_db: float
    """Of the picture on the mesh."""
    iou: float
    """Of the silhouettes there."""
    seconds: float
    """Of the orbit and the mesh."""


def measure(mesh: Mesh, orbit: Orbit, seconds: float) -> MeshMeasurements:
    """Measure one mesh against the orbit of its picture."""
    assert mesh.texture is not None
    welded = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    parts = welded.body_count
    uv = mesh.texture.corner_uv
    by_place = np.unique(
        np.concatenate([mesh.faces.reshape(-1, 1), uv.reshape(-1, 2)], axis=1), axis=0, return_inverse=True
    )[1]
    charts = trimesh.Trimesh(np.zeros((by_place.max() + 1, 3)), by_place.reshape(-1, 3), process=False).body_count
    edges, others = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    used = float(np.abs(edges[:, 0] * others[:, 1] - edges[:, 1] * others[:, 0]).sum() / 2)
    seen, hit = _seen(mesh, orbit)
    given = orbit.facts.input_index or 0
    picture = orbit.frames[given] if orbit.picture is None else orbit.picture
    true = resize(picture, _SIZE_PX, _SIZE_PX)
    inside = true[..., 3] > 0.5
    error = ((seen - composite(true)) ** 2)[inside].mean()
    return MeshMeasurements(
        faces=len(mesh.faces),
        parts=parts,
        handles=int(round((2 * parts - welded.euler_number) / 2)),
        closed=mesh.is_watertight,
        charts=charts,
        used=used,
        texture_px=mesh.texture.pixels.shape[0],
        psnr_db=float(-10 * np.log10(error)),
        iou=float((hit & inside).sum() / (hit | inside).sum()),
        seconds=seconds,
    )


def _seen(mesh: Mesh, orbit: Orbit) -> tuple[np.ndarray, np.ndarray]:
    """What the picture's camera sees of the mesh, on white (S, S, 3), and where it is (S, S)."""
    assert mesh.texture is not None
    camera = orbit.cameras[orbit.facts.input_index or 0].resized(_SIZE_PX, _SIZE_PX)
    pixels, depth = camera.project(mesh.vertices)
    found = rasterize(pixels[mesh.faces], depth[mesh.faces], _SIZE_PX, _SIZE_PX)
    uv = (mesh.texture.corner_uv[found.faces] * found.barycentric[:, :, None]).sum(axis=1)
    height, width, _ = mesh.texture.pixels.shape
    at = np.stack([(1 - uv[:, 1]) * height, uv[:, 0] * width]) - 0.5
    planes = np.moveaxis(mesh.texture.pixels / 255, -1, 0)
    colours = np.stack([ndimage.map_coordinates(plane, at, order=1, mode="nearest") for plane in planes], axis=-1)
    picture = np.ones((_SIZE_PX, _SIZE_PX, 3))
    picture[found.rows, found.columns] = colours
    hit = np.zeros((_SIZE_PX, _SIZE_PX), dtype=bool)
    hit[found.rows, found.columns] = True
    return picture, hit


def main() -> None:
    """Make the meshes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    print("| picture | faces | parts | handles | closed | charts | used | texture | PSNR | IoU | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    all_facts = []
    jobs = plan_jobs(options.pictures, options.out)
    for result in make_orbits(jobs, OrbitOptions(mesh=True), keep_existing=True):
        name = result.job.picture.stem
        if result.error or result.mesh is None:
            print(f"| {name} | {result.error} |", flush=True)
            continue
        facts = measure(load_mesh(result.mesh), load_orbit(result.job.folder), result.seconds)
        all_facts.append(facts)
        print(_row(name, facts), flush=True)
    if all_facts:
        medians = np.median([astuple(facts) for facts in all_facts], axis=0)
        print(_row("median", MeshMeasurements(*medians)))


def _row(name: str, facts: MeshMeasurements) -> str:
    return (
        f"| {name} | {facts.faces:.0f} | {facts.parts:.0f} | {facts.handles:.0f} | {'yes' if facts.closed else 'no'} | "
        f"{facts.charts:.0f} | {facts.used:.2f} | {facts.texture_px:.0f} | {facts.psnr_db:.1f} | {facts.iou:.3f} | "
        f"{facts.seconds:.1f} |"
    )


if __name__ == "__main__":
    main()

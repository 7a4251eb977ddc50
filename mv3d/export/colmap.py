"""COLMAP's sparse model as text: https://colmap.github.io/format.html#text-format."""

from __future__ import annotations

from pathlib import Path

from mv3d.cameras import Camera
from mv3d.conventions import to_colmap
from mv3d.export.nerf import NUM_POINTS, save_images
from mv3d.export.points import sample_points
from mv3d.files import whole_folder
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit


def save_colmap(orbit: Orbit, mesh: Mesh | None, folder: Path) -> None:
    """Write ``images/`` and ``sparse/0/{cameras,images,points3D}.txt``, the layout that splat trainers expect.

    The world stays ours (Z up). Points are drawn from the mesh and belong to no picture's keypoints; without a mesh
    there are none. Replaces ``folder``.
    """
    names = [f"{k:03d}.png" for k in range(len(orbit))]
    lenses = [_lens(camera) for camera in orbit.cameras]
    distinct = list(dict.fromkeys(lenses))
    cameras = [f"{number} PINHOLE {lens}" for number, lens in enumerate(distinct, start=1)]
    images = []
    for number, (camera, lens, name) in enumerate(zip(orbit.cameras, lenses, names, strict=True), start=1):
        quaternion, translation = to_colmap(camera)
        pose = " ".join(f"{value:.17g}" for value in (*quaternion, *translation))
        images += [f"{number} {pose} {distinct.index(lens) + 1} {name}", ""]  # the second line: no keypoints
    with whole_folder(folder, overwrite=True) as partial:
        save_images(orbit, [f"images/{name}" for name in names], partial)
        model = partial / "sparse" / "0"
        model.mkdir(parents=True)
        _write_lines(["# CAMERA_ID MODEL WIDTH HEIGHT FX FY CX CY", *cameras], model / "cameras.txt")
        _write_lines(["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then POINTS2D", *images], model / "images.txt")
        _write_lines(["# POINT3D_ID X Y Z R G B ERROR TRACK", *_points(mesh)], model / "points3D.txt")


def _lens(camera: Camera) -> str:
    focal = f"{camera.focal_px:.17g}"
    return f"{camera.width_px} {camera.height_px} {focal} {focal} {camera.cx_px:.17g} {camera.cy_px:.17g}"


def _points(mesh: Mesh | None) -> list[str]:
    if mesh is None:
        return []
    points, colours = sample_points(mesh, NUM_POINTS)
    return [
        f"{number} {x:.6f} {y:.6f} {z:.6f} {red} {green} {blue} 0"
        for number, ((x, y, z), (red, green, blue)) in enumerate(zip(points, colours, strict=True), start=1)
    ]


def _write_lines(lines: list[str], path: Path) -> None:
    path.write_text("\n".join(lines) + "\n")

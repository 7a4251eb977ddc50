"""Datasets for radiance fields: nerfstudio's, and NeRF-synthetic's, which instant-ngp reads as well."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from mv3d.conventions import to_nerf_synthetic
from mv3d.errors import Mv3dError
from mv3d.export.points import encode_points, sample_points
from mv3d.files import whole_folder
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit, describe_orbit
from mv3d.pixels import to_uint8

NUM_POINTS = 20_000
_POINTS_NAME = "sparse_pc.ply"  # as ns-process-data calls it
_HELD_OUT_EVERY = 8  # mip-NeRF 360's and nerfstudio's habit


def save_nerfstudio(orbit: Orbit, mesh: Mesh | None, folder: Path) -> None:
    """Write a nerfstudio dataset: ``images/``, ``transforms.json``, and of a mesh the points to start splats from.

    Follows https://docs.nerf.studio/quickstart/data_conventions.html. Replaces ``folder``.
    """
    names = [f"images/{k:03d}.png" for k in range(len(orbit))]
    transforms = {key: value for key, value in describe_orbit(orbit, names).items() if key != "mv3d"}
    with whole_folder(folder, overwrite=True) as partial:
        save_images(orbit, names, partial)
        if mesh is not None:
            transforms["ply_file_path"] = _POINTS_NAME
            (partial / _POINTS_NAME).write_bytes(encode_points(*sample_points(mesh, NUM_POINTS)))
        _write_json(transforms, partial / "transforms.json")


def save_nerf_synthetic(orbit: Orbit, mesh: Mesh | None, folder: Path) -> None:
    """Write a dataset in NeRF-synthetic's layout (Mildenhall et al., 2020), which instant-ngp reads as well.

    Every eighth view is held out as ``test``, which ``val`` names again; an orbit of fewer holds out its last one.
    Replaces ``folder``.

    Raises:
        Mv3dError: if the views differ in their lens, or there is only one.
    """
    if len(orbit) < 2:
        raise Mv3dError(
            "one view cannot be divided into some to train on and some to test on; export to nerfstudio instead"
        )
    try:
        views = [to_nerf_synthetic(camera) for camera in orbit.cameras]
    except ValueError as error:
        raise Mv3dError(f"{error}; export to nerfstudio instead") from error
    angles = [view["camera_angle_x"] for view in views]
    if max(angles) - min(angles) > 1e-6:
        raise Mv3dError("NeRF-synthetic has one lens for all views, these differ; export to nerfstudio instead")
    held_out = [k for k in range(len(orbit)) if k % _HELD_OUT_EVERY == _HELD_OUT_EVERY // 2] or [len(orbit) - 1]
    names = [f"{'test' if k in held_out else 'train'}/r_{k}" for k in range(len(orbit))]
    splits = {"train": [k for k in range(len(orbit)) if k not in held_out], "test": held_out, "val": held_out}
    with whole_folder(folder, overwrite=True) as partial:
        save_images(orbit, [f"{name}.png" for name in names], partial)
        for split, indices in splits.items():
            frames = [{"file_path": f"./{names[k]}", "transform_matrix": views[k]["transform_matrix"]} for k in indices]
            # The object's longest side is 1: within instant-ngp's unit cube of a scale of 1.
            described = {"camera_angle_x": angles[0], "aabb_scale": 1, "frames": frames}
            _write_json(described, partial / f"transforms_{split}.json")


def save_images(orbit: Orbit, names: list[str], folder: Path) -> None:
    """Write the frames as RGBA PNG, straight alpha, under relative paths."""
    for frame, name in zip(orbit.frames, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_uint8(frame), "RGBA").save(folder / name)


def _write_json(described: dict, path: Path) -> None:
    path.write_text(json.dumps(described, indent=1) + "\n")

"""The cameras as PyTorch3D's PerspectiveCameras takes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mv3d.conventions import to_pytorch3d, to_pytorch3d_lens
from mv3d.files import whole_file
from mv3d.orbit import Orbit


def save_pytorch3d(orbit: Orbit, path: Path) -> None:
    """Write ``R`` (N, 3, 3), ``T`` (N, 3), and (N, 2) each ``focal_length``, ``principal_point``, ``image_size``.

    The keys are arguments of ``PerspectiveCameras``, as tensors: lenses in NDC, sizes as (height, width). ``.json``
    holds nested lists, ``.npz`` float32 arrays. Replaces ``path``.
    """
    poses = [to_pytorch3d(camera) for camera in orbit.cameras]
    lenses = [to_pytorch3d_lens(camera) for camera in orbit.cameras]
    arrays = {
        "R": np.stack([rotation for rotation, _ in poses]),
        "T": np.stack([translation for _, translation in poses]),
        "focal_length": np.stack([focal for focal, _ in lenses]),
        "principal_point": np.stack([principal for _, principal in lenses]),
        "image_size": np.array([(camera.height_px, camera.width_px) for camera in orbit.cameras]),
    }
    with whole_file(path) as partial:
        if path.suffix.lower() == ".npz":
            np.savez(partial, **{name: array.astype(np.float32) for name, array in arrays.items()})
        else:
            partial.write_text(json.dumps({name: array.tolist() for name, array in arrays.items()}) + "\n")

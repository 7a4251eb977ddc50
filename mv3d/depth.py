"""Depth maps beside an orbit's frames: ``depth/000.png …``, 16 bits, in steps of 1e-4 world units, 0 where nothing is.

Depth is the distance along the viewing axis (nerfstudio's and RGB-D cameras' "z-depth"), not along the ray.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mv3d.errors import Mv3dError
from mv3d.files import check_readable_file, whole_folder

Depth = NDArray[np.float32]

DEPTH_FOLDER = "depth"
DEPTH_STEP = 1e-4
"""World units in one step of a map's 16 bits."""


def depth_levels(depth: Depth) -> NDArray[np.uint16]:
    """Depth in world units as the pixels of maps, of the same shape."""
    levels = np.round(depth / DEPTH_STEP)
    if not (np.isfinite(levels).all() and levels.min() >= 0 and levels.max() < 2**16):
        raise ValueError(f"depth must lie in 0 to {2**16 * DEPTH_STEP:g}, got {depth.min()} to {depth.max()}")
    return levels.astype(np.uint16)


def save_depth(depth: Depth, orbit_folder: Path) -> None:
    """Write the depth (N, H, W), in world units, of an orbit folder's views, replacing what is there."""
    levels = depth_levels(depth)
    with whole_folder(orbit_folder / DEPTH_FOLDER, overwrite=True) as partial:
        for k, view in enumerate(levels):
            Image.fromarray(view).save(partial / f"{k:03d}.png")


def load_depth(orbit_folder: Path) -> Depth | None:
    """Read the depth (N, H, W) of an orbit folder, in world units; None if it has none.

    Raises:
        Mv3dError: if a map is no readable picture of 16 bits, or of another size than the first.
    """
    paths = sorted((orbit_folder / DEPTH_FOLDER).glob("*.png"))
    if not paths:
        return None
    views = []
    for path in paths:
        check_readable_file(path)
        try:
            with Image.open(path) as picture:
                view = np.asarray(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise Mv3dError(f"{path} is no readable picture: {error}") from error
        if view.dtype not in (np.uint16, np.int32) or view.ndim != 2 or (views and view.shape != views[0].shape):
            raise Mv3dError(f"{path} is no depth map of 16 bits, or of another size than the first")
        views.append(view)
    return (np.stack(views) * DEPTH_STEP).astype(np.float32)

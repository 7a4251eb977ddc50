"""Which space an object fills, beside an orbit's frames: ``occupancy.npz``, one bit a cell of a cube around the origin.

The cube's half side is the radius of the object's smallest sphere around the origin, which a frame of the project's
cameras just holds; cells are (Z, Y, X) in the orbit's world, as its cameras are.
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mv3d.errors import Mv3dError

OCCUPANCY_FILE = "occupancy.npz"


def occupancy_file(filled: NDArray[np.bool_]) -> bytes:
    """What stands in the file of a grid (D, D, D)."""
    with BytesIO() as file:
        np.savez_compressed(file, bits=np.packbits(filled), size=np.int64(len(filled)))
        return file.getvalue()


def load_occupancy(orbit_folder: Path) -> NDArray[np.bool_] | None:
    """Read the grid (D, D, D) of an orbit folder; None if it has none.

    Raises:
        Mv3dError: if the file is damaged.
    """
    path = orbit_folder / OCCUPANCY_FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            size = int(file["size"])
            return np.unpackbits(file["bits"], count=size**3).astype(bool).reshape(size, size, size)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Mv3dError(f"{path} is no occupancy grid; render it again: {error}") from error

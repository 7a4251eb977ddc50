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
OCCUPANCY_SIZE = 128
"""Cells along each side."""


def occupancy_file(filled: NDArray[np.bool_]) -> bytes:
    """What stands in the file of a grid (D, D, D), D = `OCCUPANCY_SIZE`."""
    with BytesIO() as file:
        np.savez_compressed(file, bits=np.packbits(filled))
        return file.getvalue()


def load_occupancy(orbit_folder: Path) -> NDArray[np.bool_] | None:
    """Read the grid (D, D, D), D = `OCCUPANCY_SIZE` of an orbit folder; None if it has none.

    Raises:
        Mv3dError: if the file is damaged.
    """
    path = orbit_folder / OCCUPANCY_FILE
    if not path.is_file():
        return None
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return np.unpackbits(file["bits"]).astype(bool).reshape((OCCUPANCY_SIZE,) * 3)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Mv3dError(f"{path} is no occupancy grid; render it again: {error}") from error

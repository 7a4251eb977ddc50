"""What a COLLADA file says about its axes and its unit of length, which trimesh leaves to its callers."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from render.sources.base import Z_UP_FROM_Y_UP

# COLLADA 1.4.1, "up_axis": right, up and inwards are -Y, +X, +Z for X_UP; +X, +Y, -Z for Y_UP; +X, +Z, +Y for Z_UP.
_Z_UP_FROM = {
    "X_UP": np.array([[0, -1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64),
    "Y_UP": Z_UP_FROM_Y_UP,
    "Z_UP": np.eye(4),
}


@dataclass(frozen=True, eq=False)
class Asset:
    """How the coordinates of a file are meant."""

    z_up_from_file: NDArray[np.float64]
    """Rotation, (4, 4)."""
    metres: float
    """Length of its unit."""


def read_asset(path: Path) -> Asset:
    """Read a file's ``asset`` element; what it does not say, or a damaged file, is Y up and in metres."""
    axis, metres = "Y_UP", 1.0
    try:
        for _, element in ElementTree.iterparse(path):
            tag = element.tag.rpartition("}")[2]
            if tag == "up_axis":
                axis = (element.text or "").strip()
            elif tag == "unit":
                metres = float(element.get("meter") or 1)
            elif tag == "asset":  # the first one is the file's
                break
    except (ElementTree.ParseError, ValueError, LookupError):
        pass  # trimesh reads the file too, and says what is wrong with it
    usable = isfinite(metres) and metres > 0
    return Asset(_Z_UP_FROM.get(axis, Z_UP_FROM_Y_UP), metres if usable else 1.0)

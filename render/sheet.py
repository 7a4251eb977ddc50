"""A contact sheet of many objects, for people."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.orbit import Orbit, make_sheet
from mv3d.pixels import to_uint8


def save_objects_sheet(
    orbits: Iterable[tuple[str, Orbit]], path: Path, *, most: int = 200, columns: int = 10, size_px: int = 128
) -> int:
    """Draw the first view of up to ``most`` objects, one orbit of each; returns how many.

    Raises:
        Mv3dError: if there is none.
    """
    tiles, seen = [], set()
    for name, orbit in orbits:
        item = name.rpartition("/")[0]
        if item in seen:
            continue
        seen.add(item)
        tiles.append(to_uint8(orbit.select([0]).resized(size_px).on())[0])
        if len(tiles) == most:
            break
    if not tiles:
        raise Mv3dError("there is no orbit to draw")
    with whole_file(path) as partial:
        Image.fromarray(make_sheet(np.stack(tiles), min(columns, len(tiles)))).save(partial)
    return len(tiles)

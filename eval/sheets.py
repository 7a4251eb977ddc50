"""Pictures of predictions under the truth, for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eval.baselines import input_view
from mv3d.files import whole_file
from mv3d.orbit import Orbit, to_uint8

_COLUMNS = 8
_MAX_CELL_PX = 256
_LABEL_PX = 14
_JPEG_QUALITY = 88


def save_comparison_sheet(truth: Orbit, orbits: dict[str, Orbit], psnrs: dict[str, float], path: Path) -> None:
    """Write a JPEG: a row for the truth and one for each method, evenly spaced views from the input view on."""
    start = input_view(truth)
    num_columns = min(_COLUMNS, len(truth))
    views = [(start + round(k * len(truth) / num_columns)) % len(truth) for k in range(num_columns)]
    azimuths = ", ".join(f"{truth.cameras[k].azimuth_deg:.0f}" for k in views)
    rows = [_row(truth, views, f"truth; azimuths {azimuths} (the first is the input)")]
    rows += [_row(orbit, views, f"{method}: {psnrs[method]:.2f} dB") for method, orbit in orbits.items()]
    with whole_file(path) as partial:
        Image.fromarray(np.concatenate(rows)).save(partial, quality=_JPEG_QUALITY)


def _row(orbit: Orbit, views: list[int], label: str) -> np.ndarray:
    some = orbit.select(views)
    if max(orbit.frames.shape[1:3]) > _MAX_CELL_PX and orbit.frames.shape[1] == orbit.frames.shape[2]:
        some = some.resized(_MAX_CELL_PX)
    pictures = np.concatenate(list(to_uint8(some.on())), axis=1)
    banner = Image.new("RGB", (pictures.shape[1], _LABEL_PX), "white")
    ImageDraw.Draw(banner).text((2, 0), label, fill="black", font=ImageFont.load_default(_LABEL_PX - 3))
    return np.concatenate([np.asarray(banner), pictures])

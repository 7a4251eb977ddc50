"""Views of some test objects, without meshes, beside those of a report: minutes where a whole report takes hours.

    python -m benchmarks.views OBJECTS --work runs/views --every 3 --report docs/results/scores.csv

PSNR, LPIPS (alex) and silhouette IoU over all views but the input's, as ``python -m eval run`` scores them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from eval.metrics.images import psnr
from eval.metrics.lpips import load_lpips
from eval.protocol import load_protocol
from eval.truth.objects import list_objects, render_truth
from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.model.checkpoints import load_model
from mv3d.orbit import Orbit, load_orbit
from mv3d.pixels import composite

_COLUMNS = ("psnr_without_input", "lpips_alex_without_input", "silhouette_iou_without_input")


@dataclass(frozen=True)
class Options:
    """What is compared."""

    objects: Annotated[Path, tyro.conf.Positional]
    """As for ``python -m eval run --protocol mv3d-test``."""
    work: Path
    """Where the true views go."""
    model: str = "mini"
    preview: bool = False
    """The coarse stage alone."""
    every: int = 3
    """Take every so manieth object of the protocol's."""
    report: Path | None = None
    """scores.csv of a report, whose rows of the same objects are told beside."""
    method: str = "mini"
    """In that report."""


def main(options: Options) -> None:
    """Print a line an object, and the means."""
    protocol = load_protocol("mv3d-test")
    listed = list_objects(options.objects, protocol.here.split, options.work)[: protocol.here.num_objects]
    truths, _ = render_truth(listed[:: options.every], protocol, options.work / "truth", workers=1)
    model, lpips = load_model(options.model), load_lpips("alex")
    before = _report(options)
    rows, others = [], []
    for name, folder in sorted(truths.items()):
        truth = load_orbit(folder)
        settings = GenerateSettings(
            num_views=len(truth), elevation_deg=truth.cameras[0].elevation_deg, preview=options.preview
        )
        rows.append(_scores(generate_orbit(truth.frames[0], model, settings), truth, lpips))
        others.append(before.get(name, (np.nan,) * 3))
        print(name, *np.round(rows[-1], 3), "|", *np.round(others[-1], 3), flush=True)
    print(
        f"mean of {len(rows)}",
        *np.round(np.mean(rows, axis=0), 4),
        "| report",
        *np.round(np.nanmean(others, axis=0), 4),
    )


def _scores(made: Orbit, truth: Orbit, lpips: torch.nn.Module) -> tuple[float, float, float]:
    shown, wanted = (composite(orbit.frames)[1:] for orbit in (made, truth))
    with torch.no_grad():
        distance = lpips(*(torch.from_numpy(x).permute(0, 3, 1, 2) for x in (shown, wanted))).mean().item()
    ours, theirs = (orbit.frames[1:, ..., 3] >= 0.5 for orbit in (made, truth))
    union = (ours | theirs).sum(axis=(1, 2))
    overlap = (ours & theirs).sum(axis=(1, 2)) / np.maximum(union, 1)
    return float(np.mean(psnr(shown, wanted))), distance, float(overlap[union > 0].mean())


def _report(options: Options) -> dict[str, tuple[float, ...]]:
    if options.report is None:
        return {}
    with options.report.open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == options.method]
    return {row["object"]: tuple(float(row[column]) for column in _COLUMNS) for row in rows}


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

"""Views that another method made, scored against true ones beside baselines; what ``python -m eval score`` does.

python examples/05_score_a_rival.py PREDICTED TRUTH

PREDICTED holds an object a folder (000.png, 001.png, ...), a strip or a video; TRUTH the same, or orbit folders.
``python -m eval weights`` brings LPIPS' weights; without them LPIPS is absent from the table, and says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from eval.benchmark.given import score_given
from eval.metrics.names import BY_KEY
from eval.options import Order


def main(
    predicted: Annotated[Path, tyro.conf.Positional],
    truth: Annotated[Path, tyro.conf.Positional],
    order: Order = "input-first",
) -> None:
    """Print each method's means over objects, all views counted."""
    finished = score_given(predicted, truth, None, order, predicted.name, None, ("alex",), dists=False)
    result = finished.result
    for method in result.methods:
        cells = []
        for key in ("psnr", "ssim", "lpips_alex", "silhouette_iou"):
            estimate = result.estimate(method.name, BY_KEY[key], with_input=True)
            cells.append(f"{BY_KEY[key].label} {'absent' if estimate is None else f'{estimate.mean:.3f}'}")
        print(f"{method.name}: {', '.join(cells)}")
    for warning in result.warnings:
        print(f"Warning: {warning}")


if __name__ == "__main__":
    tyro.cli(main)

"""Whether a video model is the better start for multi-view than an image model: SVD's claim (Blattmann et al. 2023).

    python -m benchmarks.prior_ablation --out runs/prior_ablation

Add ``--pretrain diffusion.loop.steps=20 --finetune diffusion.loop.steps=20`` to try it.

The renderings it trains on are named in docs/prior-ablation.md. Pretrains one network on clips of a moving camera
(configs/motion_base.yaml) and one on their single frames (configs/prior_image.yaml), then fine-tunes both, and one of
random weights, on the same orbits in the same order with equal steps and parameters (configs/prior_orbits.yaml), with
every seed. Writes ``curves.csv``, and ``curves.svg``: PSNR and LPIPS of held-out orbits against iterations, the mean
over seeds. Stopped, the same command goes on; seeds draw the new weights, batches and noise of the fine-tuning, and
pretraining is done once.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from eval.report.charts import line_chart
from finetune.__main__ import main as train
from finetune.checkpoint import latest_checkpoint
from mv3d.files import whole_file

_PRIORS = ("video", "image", "scratch")
_PRETRAINING = {"video": "motion_base", "image": "prior_image"}
_NEW = (
    "base=mini",
    "init=random",
    "diffusion.channels=[64, 128]",
    "diffusion.heads=[2, 4]",
    "diffusion.sampling_steps=25",
)
_SCORES = {"val_psnr": "PSNR, dB", "val_lpips": "LPIPS (AlexNet)"}
_STYLE = "<style>text{font:12px sans-serif}.grid{stroke:#ddd}.title{font-weight:bold}.end{text-anchor:end}</style>"

Curve = dict[int, dict[str, float]]
"""Scores by step."""


def main() -> int:
    """Train all, then write the curves; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    for name, of in (("--pretrain", "both pretrainings"), ("--finetune", "every fine-tuning")):
        parser.add_argument(name, action="append", default=[], metavar="KEY=VALUE", help=f"override a setting of {of}")
    options = parser.parse_args()
    for prior, config in _PRETRAINING.items():
        if not _trained(f"configs/{config}.yaml", options.out / f"pretrained-{prior}", options.pretrain):
            return 2
    curves: dict[str, list[Curve]] = {prior: [] for prior in _PRIORS}
    for seed in range(options.seeds):
        for prior in _PRIORS:
            run = options.out / f"{prior}-{seed}"
            start = _NEW if prior == "scratch" else (f"base={options.out}/pretrained-{prior}/model",)
            if not _trained("configs/prior_orbits.yaml", run, [*start, f"seed={seed}", *options.finetune]):
                return 2
            curves[prior].append(_read_curve(run / "diffusion" / "log.jsonl"))
    _save(curves, options.out)
    return 0


def _trained(config: str, run: Path, overrides: list[str]) -> bool:
    """Train, or go on, or find that all is done; whether it is."""
    words = [word for text in (f"run={run}", *overrides) for word in ("--set", text)]
    if train([config, *words]):
        return False
    wanted = json.loads((run / "config.json").read_text())["diffusion"]["loop"]["steps"]
    last = latest_checkpoint(run / "diffusion")
    return last is not None and json.loads((last / "state.json").read_text())["step"] >= wanted


def _read_curve(log: Path) -> Curve:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {line["step"]: {key: line[key] for key in _SCORES} for line in lines if "val_psnr" in line}


def _save(curves: dict[str, list[Curve]], out: Path) -> None:
    rows = [
        {"prior": prior, "seed": seed, "step": step, **scores}
        for prior, found in curves.items()
        for seed, curve in enumerate(found)
        for step, scores in sorted(curve.items())
    ]
    with whole_file(out / "curves.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prior", "seed", "step", *_SCORES])
        writer.writeheader()
        writer.writerows(rows)
    charts = []
    for number, (key, label) in enumerate(_SCORES.items()):
        series = {prior: _mean(found, key) for prior, found in curves.items()}
        chart = line_chart(f"{label} of held-out orbits", "iterations", label, series)
        charts.append(chart.replace("<svg ", f'<svg x="{570 * number}" width="560" height="360" ', 1))
    with whole_file(out / "curves.svg") as partial:
        opening = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1140 370">'
        partial.write_text(opening + _STYLE + "".join(charts) + "</svg>\n")
    last = max(row["step"] for row in rows)
    for prior in _PRIORS:
        ends = [[row[key] for key in _SCORES] for row in rows if row["prior"] == prior and row["step"] == last]
        print(
            f"{prior}: after {last} steps PSNR {np.mean(ends, axis=0)[0]:.2f} dB, LPIPS {np.mean(ends, axis=0)[1]:.3f}"
        )


def _mean(found: list[Curve], key: str) -> tuple[list[float], list[float]]:
    steps = sorted(set.intersection(*(set(curve) for curve in found)))
    return [float(step) for step in steps], [float(np.mean([curve[step][key] for curve in found])) for step in steps]


if __name__ == "__main__":
    raise SystemExit(main())

"""``python -m eval run``: a model, from objects to a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mv3d.command_line import Verbose
from mv3d.options import Device

_Folder = tyro.conf.arg(metavar="DIR")


@dataclass(frozen=True)
class RunVerb:
    """Render the truth, run a model on it, score it beside the baselines, and write a report. Again to go on."""

    protocol: str
    """A name that python -m eval protocols lists, or a YAML file."""
    objects: Annotated[Path, _Folder]
    """Folder of meshes or libraries; Google Scanned Objects as they are downloaded, folders or zips."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    """Folder for report.html, report.md, scores.json and scores.csv."""
    model: str = "mini"
    """mini, a model folder, or owner/name on the hub."""
    work: Annotated[Path, _Folder] = Path("runs/eval")
    """What is kept between runs: rendered truth, predictions by model."""
    train: Annotated[Path | None, _Folder] = None
    """Rendered training orbits for two baselines; of the objects' own train split if not given."""
    train_log: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A training run's log.jsonl; its curves go into the report."""
    limit: int | None = None
    """Only so many objects, for a trial."""
    preview: bool = False
    """Stop after the coarse stage."""
    steps: int | None = None
    """Sampling steps; the model's default if not given."""
    guidance: float | None = None
    """Guidance scale; the model's default if not given."""
    seed: int = 0
    """Of the sampling noise."""
    dists: bool = False
    """Score DISTS too."""
    device: Device = "auto"
    """Where to run the model; auto takes a GPU where there is one."""
    workers: int | None = None
    """Processes for rendering and lifting; one for each core if not given."""
    wandb: Annotated[str | None, tyro.conf.arg(metavar="PROJECT")] = None
    """Project to send the means and the report to."""
    overwrite: bool = False
    """Replace the report if it exists."""
    verbose: Verbose = False

    def run(self) -> int:
        """Run the benchmark; returns the exit code."""
        from eval.benchmark.predict import load_predictor
        from eval.benchmark.run import BenchmarkRun, run_benchmark
        from eval.protocol import load_protocol
        from eval.report.page import save_report
        from eval.report.text import format_result
        from mv3d.device import pick_device
        from mv3d.files import check_free
        from mv3d.generate import GenerateSettings

        check_free(self.out, overwrite=self.overwrite)
        protocol = load_protocol(self.protocol)
        settings = GenerateSettings(steps=self.steps, guidance=self.guidance, seed=self.seed, preview=self.preview)
        predictor = load_predictor(self.model, settings, pick_device(self.device))
        run = BenchmarkRun(protocol, self.objects, self.work, self.train, self.limit, self.workers, self.dists)
        finished = run_benchmark(run, predictor)
        save_report(finished, self.out, protocol=protocol, training_log=self.train_log, overwrite=self.overwrite)
        if self.wandb is not None:
            from eval.report.upload import upload_report

            upload_report(finished.result, self.out, self.wandb)
        print(format_result(finished.result, protocol.published), end="")
        return 0

"""A result sent to Weights & Biases: means as a summary, the page as a file. The files on disk are the report."""

from __future__ import annotations

from pathlib import Path

from eval.scoring.results import RunResult
from mv3d.errors import Mv3dError


def upload_report(result: RunResult, folder: Path, project: str) -> None:
    """Make a run of a project with all means of all methods, the protocol as its config and the page in it.

    Raises:
        Mv3dError: if wandb is not installed.
    """
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise Mv3dError(
            'a report is sent by wandb: pip install -c constraints.txt ".[train]"', argument="wandb"
        ) from error
    first = result.methods[0].name
    run = wandb.init(
        project=project, name=f"{first} {result.protocol['name']}", config=result.protocol, job_type="eval"
    )
    for method in result.methods:
        for metric in result.metrics():
            estimate = result.estimate(method.name, metric, with_input=result.input_counts)
            if estimate is not None:
                run.summary[f"{method.name}/{metric.key}"] = estimate.mean
    run.log({"report": wandb.Html(str(folder / "report.html"), inject=False)})
    run.finish()

"""The command line of the room: ``python -m eval weights | run | score | table | gallery | geometry | protocols``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from mv3d.errors import Mv3dError
from mv3d.options import Device

_OptionalFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]
_Folder = Annotated[Path, tyro.conf.arg(metavar="DIR")]
_OptionalFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
_Flag = tyro.conf.FlagCreatePairsOff[bool]


def weights(cache: _OptionalFolder = None) -> None:
    """Fetch and convert the weights of LPIPS and DISTS, once.

    Args:
        cache: Folder to keep them in; $MV3D_CACHE or ~/.cache/mv3d if not given.
    """
    from eval.metrics.weights import fetch_weights

    for path in fetch_weights(cache):
        print(path)


def protocols() -> None:
    """List the protocols, what each states, and how many published rows it has."""
    from eval.protocol import list_protocols, load_protocol

    for name in list_protocols():
        protocol = load_protocol(name)
        unknown = [key.replace("_", " ") for key, setting in protocol.settings.items() if setting.stated is None]
        print(f"{name}: {protocol.title}; {len(protocol.published)} published rows")
        print(f"    {protocol.citation}; not stated: {', '.join(unknown) or 'nothing'}")


def run(
    protocol: str,
    objects: _Folder,
    out: _Folder,
    model: str = "mini",
    work: _Folder = Path("runs/eval"),
    train: _OptionalFolder = None,
    train_log: _OptionalFile = None,
    limit: int | None = None,
    preview: _Flag = False,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    dists: _Flag = False,
    device: Device = "auto",
    workers: int | None = None,
    wandb: str | None = None,
    overwrite: _Flag = False,
) -> None:
    """Render the truth, run a model on it, score it beside the baselines, and write a report. Again to go on.

    Args:
        protocol: A name that python -m eval protocols lists, or a YAML file.
        objects: Folder of meshes or libraries; Google Scanned Objects as they are downloaded, folders or zips.
        out: Folder for report.html, report.md, scores.json and scores.csv.
        model: mini, a model folder, or owner/name on the hub.
        work: What is kept between runs: rendered truth, predictions by model.
        train: Rendered training orbits for two baselines; of the objects' own train split if not given.
        train_log: A training run's log.jsonl; its curves go into the report.
        limit: Only so many objects, for a trial.
        preview: Stop after the coarse stage.
        steps: Sampling steps; the model's default if not given.
        guidance: Guidance scale; the model's default if not given.
        seed: Of the sampling noise.
        dists: Score DISTS too.
        device: Where to run the model; auto takes a GPU where there is one.
        workers: Processes for rendering and lifting; one for each core if not given.
        wandb: Project to send the means and the report to.
        overwrite: Replace the report if it exists.
    """
    from eval.benchmark.predict import load_predictor
    from eval.benchmark.run import Run, run_benchmark
    from eval.protocol import load_protocol
    from eval.report.page import save_report
    from eval.report.text import format_result
    from mv3d.device import pick_device
    from mv3d.files import check_free
    from mv3d.generate import GenerateSettings

    check_free(out, overwrite=overwrite)
    chosen = load_protocol(protocol)
    settings = GenerateSettings(steps=steps, guidance=guidance, seed=seed, preview=preview)
    predictor = load_predictor(model, settings, pick_device(device))
    finished = run_benchmark(Run(chosen, objects, work, train, limit, workers, dists), predictor)
    save_report(
        finished.result,
        out,
        protocol=chosen,
        truths=finished.truths,
        predictions=finished.predictions,
        training_log=train_log,
        overwrite=overwrite,
    )
    if wandb is not None:
        from eval.report.upload import upload_report

        upload_report(finished.result, out, wandb)
    print(format_result(finished.result, chosen.published), end="")


def score(
    predicted: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PREDICTED")],
    truth: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRUTH")],
    /,
    protocol: str | None = None,
    order: str = "input-first",
    name: str | None = None,
    train: _OptionalFolder = None,
    lpips: tuple[str, ...] = ("alex", "vgg"),
    dists: _Flag = False,
    out: _OptionalFolder = None,
    overwrite: _Flag = False,
) -> None:
    """Score anybody's views against true ones.

    Args:
        predicted: An orbit folder, a folder of numbered pictures, a strip of views, a video, or a folder of these.
        truth: The same, with the true views; objects are matched by relative path.
        protocol: What to check the truth against and score by; without one, as the views are, on white.
        order: input-first, or input-last as SV3D writes its views.
        name: What to call the method; the folder's name if not given.
        train: Training orbits for two of the baselines.
        lpips: Networks for LPIPS, where no protocol names them.
        dists: Score DISTS too.
        out: Folder for the report; without one it is printed only.
        overwrite: Replace the report if it exists.
    """
    from eval.benchmark.given import score_given
    from eval.protocol import load_protocol
    from eval.report.page import save_report
    from eval.report.text import format_result
    from eval.views.views import parse_order
    from mv3d.files import check_free

    if out is not None:
        check_free(out, overwrite=overwrite)
    chosen = None if protocol is None else load_protocol(protocol)
    finished = score_given(
        predicted, truth, chosen, parse_order(order), name or predicted.name, train, lpips, dists=dists
    )
    if out is not None:
        save_report(
            finished.result,
            out,
            protocol=chosen,
            truths=finished.truths,
            predictions=finished.predictions,
            order=parse_order(order),
            overwrite=overwrite,
        )
    print(format_result(finished.result, chosen.published if chosen else ()), end="")


def table(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")],
    /,
    out: _OptionalFile = None,
) -> None:
    """Set runs of one protocol side by side, with paired differences and what others published under it.

    Args:
        runs: Folders of reports, or their scores.json.
        out: Markdown file to write too.
    """
    from eval.benchmark.given import format_runs

    _tell(format_runs(runs), out)


def geometry(
    predicted: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PREDICTED")],
    truth: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRUTH")],
    /,
    align: str = "none",
    out: _OptionalFile = None,
) -> None:
    """Score anybody's meshes against true ones: Chamfer, volume IoU, F-scores, normal consistency.

    Args:
        predicted: A mesh file, or a folder of them.
        truth: The same, with the true meshes; they are matched by relative path, whatever the format.
        align: none, yaw (72 turns about the vertical), or icp (then rotation, translation and scale).
        out: Markdown file to write too.
    """
    from eval.meshes.given import format_scores, score_meshes

    _tell(format_scores(score_meshes(predicted, truth, align)), out)


def gallery(
    report: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REPORT")],
    /,
    out: _Folder,
    work: _Folder = Path("runs/eval"),
    by: str = "lpips_alex",
    count: int = 10,
    overwrite: _Flag = False,
) -> None:
    """Show a run's best, median and worst objects: input, true and predicted views, a sheet of each kind.

    Args:
        report: Folder that python -m eval run wrote.
        out: Folder for best.webp, median.webp, worst.webp and README.md.
        work: The run's own --work, where its views are.
        by: Metric to rank by, as it is called in scores.json: lpips_alex, psnr, silhouette_iou, chamfer, ...
        count: Objects on a sheet.
        overwrite: Replace the folder if it exists.
    """
    from eval.report.gallery import save_gallery

    save_gallery(report, work, out, by, count, overwrite=overwrite)
    print(out)


def _tell(text: str, out: Path | None) -> None:
    """Print text, and write it to a file if there is one."""
    from mv3d.files import whole_file

    if out is not None:
        with whole_file(out) as partial:
            partial.write_text(text)
    print(text, end="")


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code; a user's mistake is one line and code 2."""
    verbs = {
        "weights": weights,
        "protocols": protocols,
        "run": run,
        "score": score,
        "table": table,
        "gallery": gallery,
        "geometry": geometry,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(
            verbs, prog="python -m eval", description="Scores of views against the truth.", args=arguments
        )
    except Mv3dError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line of the room: ``python -m eval weights | predict | score | compare``."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated

import tyro

from eval.weights import LPIPS_NETS, LpipsNet, fetch_lpips
from mv3d.errors import Mv3dError
from mv3d.files import whole_file

_OptionalFolder = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]


def weights(cache: _OptionalFolder = None) -> None:
    """Fetch and convert the weights of LPIPS, once.

    Args:
        cache: Folder to keep them in; $MV3D_CACHE or ~/.cache/mv3d if not given.
    """
    for path in fetch_lpips(cache):
        print(path)


def score(
    predicted: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PREDICTED")],
    truth: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRUTH")],
    /,
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    lpips: tuple[LpipsNet, ...] = LPIPS_NETS,
) -> None:
    """Score predicted views against true ones: PSNR, SSIM, LPIPS and silhouettes, per view and mean.

    Args:
        predicted: An orbit folder, or a folder of orbit folders.
        truth: The same, with the true views; folders are matched by relative path.
        json: File to write all numbers and the protocol to.
        lpips: Networks for LPIPS.
    """
    from eval.metrics.lpips import load_present
    from eval.report import format_scores, make_protocol, scores_as_json
    from eval.score import score_folders

    networks, absent = load_present(lpips)
    scores = score_folders(predicted, truth, networks)
    protocol = make_protocol(
        list(scores.objects.values()), networks, num_objects=len(scores.objects), input_view="both ways, by row"
    )
    if json is not None:
        with whole_file(json) as partial:
            text = json_format.dumps(scores_as_json(scores, protocol, absent), indent=1, allow_nan=False)
            partial.write_text(text + "\n")
    print(format_scores(scores, protocol, absent), end="")


def predict(
    truth: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    model: str = "mini",
    split: str = "test",
    preview: tyro.conf.FlagCreatePairsOff[bool] = False,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Run a model on the input view of every held-out orbit; made orbits are kept, so a killed run continues.

    Args:
        truth: Folder of true orbits as python -m render writes them.
        out: Folder for the predicted orbits, by the same relative paths.
        model: mini, a model folder, or owner/name on the hub.
        split: Which side of the collection.
        preview: Stop after the coarse stage.
        steps: Sampling steps; the model's default if not given.
        guidance: Guidance scale; the model's default if not given.
        seed: Of the sampling noise.
        device: Where to run.
    """
    from eval.predict import predict_orbits
    from mv3d.generate import GenerateSettings
    from mv3d.model.checkpoints import load_model

    settings = GenerateSettings(steps=steps, guidance=guidance, seed=seed, preview=preview)
    made = predict_orbits(load_model(model, device), truth, out, split, settings)
    print(f"{made} orbits made in {out}")


def compare(
    truth: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    train: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    method: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=DIR")] = (),
    out: _OptionalFolder = None,
    lpips: tuple[LpipsNet, ...] = ("alex",),
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> None:
    """Compare methods with each other and with three baselines on held-out objects, the input view left out.

    Args:
        truth: Folder of true orbits; of a rendered collection its test split is taken.
        train: Folder of training orbits for the baselines; of a rendered collection its train split is taken.
        method: A name and its folder of predicted orbits, repeated for more; the first is compared with all others.
        out: Folder for report.md, report.json and sheets of the best, median and worst objects.
        lpips: Networks for LPIPS.
        overwrite: Replace the folder if it exists.
    """
    from eval.compare import gather_contest, score_contest
    from eval.compare_report import format_comparison, save_comparison
    from eval.metrics.lpips import load_present
    from eval.report import make_protocol
    from mv3d.files import check_free

    methods = _parse_methods(method)
    if out is not None:
        check_free(out, overwrite=overwrite)
    networks, absent = load_present(lpips)
    contest = gather_contest(truth, train, methods)
    comparison = score_contest(contest, networks)
    protocol = make_protocol(
        comparison.orbits,
        networks,
        num_objects=len(comparison.objects),
        input_view="left out",
        averaging="views of an orbit, orbits of an object, then objects",
    )
    if out is not None:
        save_comparison(comparison, contest, protocol, absent, out, overwrite=overwrite)
    print(format_comparison(comparison, protocol, absent), end="")


def _parse_methods(pairs: tuple[str, ...]) -> dict[str, Path]:
    methods = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            raise Mv3dError(f"--method {pair} is not of the form NAME=DIR")
        methods[name] = Path(folder)
    return methods


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code; a user's mistake is one line and code 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"weights": weights, "predict": predict, "score": score, "compare": compare},
            prog="python -m eval",
            description="Scores of predicted orbits against true ones.",
            args=arguments,
        )
    except Mv3dError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Views that somebody made: scored against true ones, and finished runs set side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.benchmark.run import training_orbits
from eval.metrics.perceptual import load_perceptual_metrics
from eval.options import Order
from eval.protocol import Protocol, list_protocols, load_protocol
from eval.report.tables import published_tables, run_tables
from eval.report.text import format_tables
from eval.scoring.comparison import Comparison, score_comparison
from eval.scoring.results import Finished, Method, load_result
from eval.scoring.score import ScoreSettings
from eval.views.views import ViewSource, find_views
from mv3d.errors import Mv3dError


def score_given(
    predicted: Path,
    truth: Path,
    protocol: Protocol | None,
    order: Order,
    name: str,
    training: Path | None,
    lpips: Sequence[str],
    *,
    dists: bool,
) -> Finished:
    """Score views on disk against true ones on disk; objects are matched by relative path.

    Raises:
        Mv3dError: if nothing matches, or a single object cannot be scored.
    """
    predictions, truths = find_views(predicted), find_views(truth)
    if len(predictions) == len(truths) == 1:  # two folders of one object: their names need not agree
        predictions = dict(zip(truths, predictions.values(), strict=True))
    _check_some_shared(predictions, truths, predicted, truth)
    networks, absent = load_perceptual_metrics(
        lpips if protocol is None else protocol.here.lpips, protocol and protocol.here.clip, dists=dists
    )
    comparison = Comparison(
        truths=truths,
        methods=[Method(name, "given", {"views": _layouts(predictions), "order": order})],
        predictions={name: predictions},
        protocol=protocol,
        settings=ScoreSettings() if protocol is None else ScoreSettings.of(protocol),
        order=order,
        training=[] if training is None else training_orbits(training),
    )
    return Finished(score_comparison(comparison, networks, absent), truths, predictions)


def format_runs(paths: Sequence[Path]) -> str:
    """Runs of one protocol as tables, then the rows published under it.

    Raises:
        Mv3dError: if there is no run, one is none, or they are of different protocols.
    """
    if not paths:
        raise Mv3dError("name at least one run: a folder with scores.json")
    results = {_label(path): load_result(path) for path in paths}
    if len(results) < len(paths):
        raise Mv3dError("two runs have the same name; give folders with different names")
    protocols = {(r.protocol["name"], r.protocol["fingerprint"]) for r in results.values()}
    if len(protocols) > 1:
        listed = ", ".join(f"{run}: {r.protocol['name']} ({r.protocol['fingerprint']})" for run, r in results.items())
        raise Mv3dError(f"runs of different protocols do not stand in one table ({listed}); make a table of each")
    (name, _), *_ = protocols
    tables = run_tables(results)
    if name in list_protocols():
        tables += published_tables(load_protocol(name).published)
    warnings = [f"**Warning:** {run}: {warning}" for run, r in results.items() for warning in r.warnings]
    return "\n\n".join([*warnings, format_tables(tables)]) + "\n"


def _label(path: Path) -> str:
    return (path.resolve() if path.is_dir() else path.resolve().parent).name


def _check_some_shared(
    predictions: dict[str, ViewSource], truths: dict[str, ViewSource], predicted: Path, truth: Path
) -> None:
    if not predictions.keys() & truths.keys():
        example = f"{next(iter(predictions))!r} and {next(iter(truths))!r}"
        raise Mv3dError(
            f"no object is in both {predicted} ({len(predictions)}) and {truth} ({len(truths)}), which hold, for "
            f"example, {example}; name objects alike on both sides"
        )


def _layouts(sources: dict[str, ViewSource]) -> str:
    kinds = [source.kind for source in sources.values()]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))

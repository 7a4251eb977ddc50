"""The comparison as a table, as JSON and as pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.compare import SPREAD_DEFINITION, Comparison, Contest
from eval.folders import object_of
from eval.report import ABSENT, METRICS, Metric, Protocol, format_protocol, format_table
from eval.sheets import save_comparison_sheet
from eval.statistics import INTERVALS, Estimate, bootstrap_mean
from eval.weights import FETCH_COMMAND, LpipsNet
from mv3d.files import whole_folder

_SHEETS_EACH = 3


def format_comparison(comparison: Comparison, protocol: Protocol, absent: Sequence[LpipsNet]) -> str:
    """Both groups' tables (all objects, the varied half), differences to the first method, and the protocol."""
    parts = []
    for title, group in _groups(comparison).items():
        parts.append(f"## {title}\n\n{_means_table(comparison, group)}")
        parts.append(
            f"{comparison.methods[0]} minus the other, object by object:\n\n{_differences_table(comparison, group)}"
        )
    if comparison.left_out:
        lines = [f"- {name}: {reason}" for name, reason in comparison.left_out.items()]
        parts.append(f"Left out ({len(lines)} true orbits):\n" + "\n".join(lines))
    protocol_lines = [
        format_protocol(protocol, absent),
        f"- training orbits for the baselines: {comparison.num_training_orbits}; retrieval by mean squared error "
        "on white between the input view and every view of each",
        f"- difference of views: {SPREAD_DEFINITION}",
        f"- {INTERVALS}",
    ]
    parts.append("## Protocol\n\n" + "\n".join(protocol_lines))
    return "\n\n".join(parts) + "\n"


def comparison_as_json(comparison: Comparison, protocol: Protocol, absent: Sequence[LpipsNet]) -> dict[str, Any]:
    """All numbers of `format_comparison`, and each object's, ready for `json.dumps`."""
    first = comparison.methods[0]
    groups = {}
    for title, group in _groups(comparison).items():
        groups[title] = {
            method: {
                metric.field: {
                    "mean": _maybe_asdict(_estimate(comparison, metric, group, method)),
                    f"{first} minus this": _maybe_asdict(_estimate(comparison, metric, group, first, method)),
                }
                for metric in METRICS
            }
            for method in comparison.methods
        }
    return {
        "protocol": asdict(protocol),
        "num_training_orbits": comparison.num_training_orbits,
        "spread": SPREAD_DEFINITION,
        "intervals": INTERVALS,
        "absent": {f"lpips_{net}": FETCH_COMMAND for net in absent},
        "groups": groups,
        "objects": {
            name: {
                "spread": comparison.spreads[k],
                "scores": {method: asdict(scores[k]) for method, scores in comparison.scores.items()},
            }
            for k, name in enumerate(comparison.objects)
        },
        "left_out": comparison.left_out,
    }


def save_comparison(
    comparison: Comparison,
    contest: Contest,
    protocol: Protocol,
    absent: Sequence[LpipsNet],
    folder: Path,
    *,
    overwrite: bool = False,
) -> None:
    """Write ``report.md``, ``report.json`` and sheets of the objects where the first method is best, median and worst.

    Raises:
        Mv3dError: if the folder exists and ``overwrite`` is not set.
    """
    with whole_folder(folder, overwrite=overwrite) as partial:
        (partial / "report.md").write_text(format_comparison(comparison, protocol, absent))
        text = json.dumps(comparison_as_json(comparison, protocol, absent), indent=1, allow_nan=False)
        (partial / "report.json").write_text(text + "\n")
        (partial / "sheets").mkdir()
        first_entries = {object_of(entry.name): entry for entry in reversed(contest.entries)}
        for label, index in _picks(comparison):
            name = comparison.objects[index]
            truth, orbits = first_entries[name].load(contest.survey)
            psnrs = {method: scores[index].psnr for method, scores in comparison.scores.items()}
            file_name = f"{label}-{name.replace('/', '-')}.jpg"
            save_comparison_sheet(truth, orbits, psnrs, partial / "sheets" / file_name)


def _groups(comparison: Comparison) -> dict[str, tuple[int, ...]]:
    every, varied = tuple(range(len(comparison.objects))), comparison.varied
    return {
        f"All {len(every)} objects": every,
        f"The {len(varied)} objects whose true views differ most from each other": varied,
    }


def _picks(comparison: Comparison) -> list[tuple[str, int]]:
    """Indices of objects to show, by the first method's PSNR: best, median and worst ones, none twice."""
    psnrs = [scores.psnr for scores in comparison.scores[comparison.methods[0]]]
    order = sorted(range(len(psnrs)), key=lambda k: -psnrs[k])
    middle = max(0, (len(order) - _SHEETS_EACH) // 2)
    ranks = {
        "best": range(_SHEETS_EACH),
        "worst": range(len(order) - 1, len(order) - 1 - _SHEETS_EACH, -1),
        "median": range(middle, middle + _SHEETS_EACH),
    }
    seen: dict[int, str] = {}
    for label, places in ranks.items():
        for number, rank in enumerate(places, start=1):
            if 0 <= rank < len(order):
                seen.setdefault(order[rank], f"{label}-{number}")
    return [(label, index) for index, label in seen.items()]


def _means_table(comparison: Comparison, group: Sequence[int]) -> str:
    rows = [
        [method, *(_text(metric, _estimate(comparison, metric, group, method)) for metric in METRICS)]
        for method in comparison.methods
    ]
    return format_table(["method", *(metric.label for metric in METRICS)], rows)


def _differences_table(comparison: Comparison, group: Sequence[int]) -> str:
    first, *others = comparison.methods
    rows = [
        [other, *(_text(metric, _estimate(comparison, metric, group, first, other), "+") for metric in METRICS)]
        for other in others
    ]
    return format_table(["other", *(metric.label for metric in METRICS)], rows)


def _estimate(
    comparison: Comparison, metric: Metric, group: Sequence[int], method: str, minus: str | None = None
) -> Estimate | None:
    values = [getattr(comparison.scores[method][k], metric.field) for k in group]
    others = [0.0 if minus is None else getattr(comparison.scores[minus][k], metric.field) for k in group]
    if None in values or None in others:
        return None
    return bootstrap_mean([value - other for value, other in zip(values, others, strict=True)])


def _text(metric: Metric, estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return ABSENT
    mean, low, high = (f"{value:{sign}.{metric.digits}f}" for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} [{low}, {high}]"


def _maybe_asdict(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else asdict(estimate)

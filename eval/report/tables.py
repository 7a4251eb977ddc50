"""The tables of a report, as text cells; Markdown and HTML show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.metrics.names import ABSENT, BY_KEY, HEADLINE, METRICS, Metric
from eval.metrics.statistics import INTERVALS, Estimate
from eval.protocol import PublishedRow
from eval.scoring.results import RunResult, compare_means


@dataclass(frozen=True)
class Table:
    """A titled table; the first column names the rows."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def result_tables(result: RunResult) -> list[Table]:
    """All tables of one run: scores both ways, the varied half, objects as wholes, and differences."""
    counted, other = result.input_counts, not result.input_counts
    of_view = [metric for metric in result.metrics() if metric.of == "view"]
    main = [metric for metric in of_view if metric.key in HEADLINE or metric.key.startswith("lpips")]
    further = [metric for metric in of_view if metric not in main]
    whole = [metric for metric in result.metrics() if metric.of == "object"]
    varied = result.varied()
    count = len({name for name in result.means(result.methods[0].name, BY_KEY["psnr"], with_input=True) or {}})
    tables = [_means(result, f"All {count} objects, {_way(counted)}", main, with_input=counted)]
    if len(varied) > 1:
        title = f"The {len(varied)} objects whose true views differ most, {_way(counted)}"
        tables.append(_means(result, title, main, with_input=counted, only=varied))
    tables += [
        _means(result, f"All {count} objects, {_way(other)}", main, with_input=other),
        _means(result, f"Further scores, {_way(counted)}", further, with_input=counted),
        _means(result, "Objects as wholes: consistency, lifted geometry, time", whole, with_input=counted),
        _differences(result, main, varied),
    ]
    return [table for table in tables if table.rows and len(table.header) > 1]


def run_tables(results: dict[str, RunResult]) -> list[Table]:
    """Runs of one protocol side by side, their methods under test first, and paired differences to the first run."""
    names = list(results)
    first = results[names[0]]
    metrics = [m for m in METRICS if any(m in r.metrics() for r in results.values())]
    shown = [m for m in metrics if m.key in HEADLINE or m.key.startswith("lpips") or m.of == "object"]
    rows, seen = [], set()
    for run, result in results.items():
        for method in result.methods:
            label = f"{method.name} ({run})" if method.kind != "baseline" else method.name
            if method.kind == "baseline" and label in seen:
                continue  # the same in every run of a protocol
            seen.add(label)
            cells = [_cell(m, result.estimate(method.name, m, with_input=result.input_counts)) for m in shown]
            rows.append([label, *cells])
    way = _way(first.input_counts)
    title = f"{first.protocol['title']}, {way}"
    tables = [Table(title, ["method", *(m.heading for m in shown)], _models_first(rows, results), INTERVALS)]
    if len(names) > 1:
        tables.append(_run_differences(results, shown))
    return [_without_empty_columns(table) for table in tables]


def published_tables(rows: Sequence[PublishedRow]) -> list[Table]:
    """What others published under a protocol, a table for each of theirs, as printed there."""
    tables = []
    for where in dict.fromkeys(row.where for row in rows):
        group = [row for row in rows if row.where == where]
        keys = list(dict.fromkeys(key for row in group for key in row.values))
        body = [[row.method, *(f"{row.values[key]:g}" if key in row.values else "" for key in keys)] for row in group]
        header = ["method", *(BY_KEY[key].label if key in BY_KEY else key.replace("_", " ") for key in keys)]
        note = group[0].note or ""
        tables.append(Table(f"Published: {where}", header, body, f"{note}{'; ' if note else ''}copied, not run here"))
    return tables


def _way(with_input: bool) -> str:
    return "input view counted" if with_input else "input view left out"


def _means(
    result: RunResult, title: str, metrics: Sequence[Metric], *, with_input: bool, only: Sequence[str] | None = None
) -> Table:
    rows = [
        [
            method.name,
            *(_cell(m, result.estimate(method.name, m, with_input=with_input, only=only)) for m in metrics),
        ]
        for method in result.methods
    ]
    rows = [row for row in rows if any(cell != ABSENT for cell in row[1:])]
    table = Table(title, ["method", *(m.heading for m in metrics)], rows, INTERVALS)
    return _without_empty_columns(table)


def _differences(result: RunResult, metrics: Sequence[Metric], varied: Sequence[str]) -> Table:
    first, *others = (method.name for method in result.methods)
    rows = []
    for group, only in (("all", None), ("varied half", varied)):
        for other in others:
            pairs = [
                compare_means(
                    result.means(first, m, with_input=result.input_counts),
                    result.means(other, m, with_input=result.input_counts),
                    only,
                )
                for m in metrics
            ]
            cells = [_cell(m, pair, sign="+") for m, pair in zip(metrics, pairs, strict=True)]
            rows.append([f"{other} ({group})", *cells])
    return Table(
        f"{first} minus the other, object by object",
        ["other", *(m.heading for m in metrics)],
        rows,
        "paired: the interval is of the difference on the same objects",
    )


def _run_differences(results: dict[str, RunResult], metrics: Sequence[Metric]) -> Table:
    first, *others = results
    base = results[first]
    rows = []
    for other in others:
        cells = []
        for m in metrics:
            pair = [r.means(r.methods[0].name, m, with_input=base.input_counts) for r in (base, results[other])]
            cells.append(_cell(m, compare_means(pair[0], pair[1]), sign="+"))
        rows.append([f"{first} minus {other}", *cells])
    return Table("Paired differences", ["runs", *(m.heading for m in metrics)], rows, "on the objects that both scored")


def _models_first(rows: list[list[str]], results: dict[str, RunResult]) -> list[list[str]]:
    baselines = {m.name for r in results.values() for m in r.methods if m.kind == "baseline"}
    return sorted(rows, key=lambda row: row[0] in baselines)


def _without_empty_columns(table: Table) -> Table:
    keep = [k for k in range(len(table.header)) if k == 0 or any(row[k] != ABSENT for row in table.rows)]
    return Table(table.title, [table.header[k] for k in keep], [[r[k] for k in keep] for r in table.rows], table.note)


def _cell(metric: Metric, estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return ABSENT
    mean, low, high = (f"{value:{sign}.{metric.digits}f}" for value in (estimate.mean, estimate.low, estimate.high))
    if estimate.low == estimate.high:  # one object, or all alike: there is nothing to tell an interval from
        return mean
    return f"{mean} [{low}, {high}]"

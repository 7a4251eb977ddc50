"""A result as Markdown that reads as plain text too, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from eval.protocol import PublishedRow
from eval.report.tables import Table, published_tables, result_tables
from eval.scoring.results import RunResult


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, padded so that it reads as plain text too."""
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    rule = ["-" * width for width in widths]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (header, rule, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def format_tables(tables: Sequence[Table]) -> str:
    """Tables under their titles."""
    parts = [
        f"## {table.title}\n\n{format_table(table.header, table.rows)}" + (f"\n\n{table.note}" if table.note else "")
        for table in tables
    ]
    return "\n\n".join(parts)


def format_result(result: RunResult, published: Sequence[PublishedRow] = ()) -> str:
    """Everything of a run but the pictures: protocol in short, warnings, tables, what is absent, the protocol whole."""
    protocol = result.protocol
    head = [f"# {result.methods[0].name} · {protocol['title']}", "", f"`{result.command}`", ""]
    head += [f"{key}: {value}  " for key, value in summary(result)]
    parts = ["\n".join(head)]
    if result.warnings:
        parts.append("\n".join(f"**Warning:** {warning}" for warning in result.warnings))
    parts.append(format_tables(result_tables(result)))
    if published:
        parts.append(format_tables(published_tables(published)))
    parts.append("## Protocol\n\n" + _format_protocol(result))
    notes = [f"- {name} is absent: {reason}" for name, reason in result.absent.items()]
    notes += [f"- left out: {name}: {reason}" for name, reason in result.left_out.items()]
    if notes:
        parts.append("## Absent and left out\n\n" + "\n".join(notes))
    return "\n\n".join(parts) + "\n"


def summary(result: RunResult) -> list[tuple[str, str]]:
    """What stands above everything else: protocol, counts, versions, the method under test."""
    first = result.methods[0]
    about = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in first.about.items())
    views = sorted({len(o.azimuths_deg) for o in result.objects.values()})
    return [
        ("protocol", f"{result.protocol['name']} ({result.protocol['fingerprint']}) {result.protocol['citation']}"),
        ("scored", f"{len(result.objects)} objects, {', '.join(map(str, views))} views each, {result.date}"),
        ("method", f"{first.name}{': ' if about else ''}{about}"),
        ("versions", ", ".join(f"{name} {value}" for name, value in result.versions.items())),
    ]


def format_csv(result: RunResult) -> str:
    """One line for each object and method, all metrics, both with the input view and without."""
    metrics = result.metrics()
    columns = [(m, way) for m in metrics for way in ((True, False) if m.of == "view" else (True,))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [m.key + ("" if m.of == "object" else "_with_input" if way else "_without_input") for m, way in columns]
    writer.writerow(["object", "method", *names])
    for name, scored in result.objects.items():
        for method in result.methods:
            values = [scored.mean(method.name, m, with_input=way) for m, way in columns]
            writer.writerow([name, method.name, *("" if v is None else f"{v:.6g}" for v in values)])
    return out.getvalue()


def _format_protocol(result: RunResult) -> str:
    rows = [
        [setting["setting"].replace("_", " "), _text(setting["stated"]), _text(setting["here"]), setting["source"]]
        for setting in result.protocol["settings"]
    ]
    if not rows:
        return "None: the views were scored as they are, on white, per view and then per object."
    return format_table(["setting", "stated", "here", "source"], rows)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

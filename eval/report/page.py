"""The report: one HTML page that holds everything, with Markdown, JSON and CSV beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.metrics.names import BY_KEY, HEADLINE
from eval.options import Order
from eval.protocol import Protocol
from eval.report.charts import azimuth_chart, learning_charts
from eval.report.media import make_sheet, make_turntable
from eval.report.tables import published_tables, result_tables
from eval.report.text import format_csv, format_result, summary
from eval.scoring.results import RESULT_FILE, Finished, RunResult, save_result
from eval.scoring.score import ScoreSettings, on_background
from eval.views.views import ViewSource
from mv3d.files import whole_folder

_VIDEOS_EACH = 4
_MAX_SHEETS = 120
"""More would make the page heavy; the worst, the best and those evenly between are shown then."""


def save_report(
    finished: Finished,
    folder: Path,
    *,
    protocol: Protocol | None,
    order: Order = "input-first",
    training_log: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write ``report.html report.md scores.json scores.csv``, whole or not at all.

    The predictions are the views of the method under test, in ``order``.

    Raises:
        Mv3dError: if the folder exists and ``overwrite`` is not set, or the training log is none.
    """
    result = finished.result
    curves = learning_charts(training_log) if training_log is not None else []
    published = protocol.published if protocol is not None else ()
    with whole_folder(folder, overwrite=overwrite) as partial:
        save_result(result, partial / RESULT_FILE)
        (partial / "report.md").write_text(format_result(result, published))
        (partial / "scores.csv").write_text(format_csv(result))
        settings = ScoreSettings() if protocol is None else ScoreSettings.of(protocol)
        pictures = _make_pictures(result, finished.truths, finished.predictions, settings, order)
        page = _render(result, published_tables(published), curves, *pictures)
        (partial / "report.html").write_text(page)


def _render(result: RunResult, published: Sequence[Any], curves: list[str], sheets: list, videos: list) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    first = result.methods[0].name
    keys = [m for m in result.metrics() if m.key in HEADLINE or m.of == "object"]
    charts = [chart for chart in (azimuth_chart(result, key) for key in ("psnr", "lpips_alex")) if chart]
    return environment.get_template("page.html").render(
        title=f"{first} · {result.protocol['title']}",
        method=first,
        protocol=result.protocol,
        summary=summary(result),
        command=result.command,
        warnings=result.warnings,
        tables=result_tables(result),
        published=published,
        charts=[*charts, *curves],
        sheets=sheets,
        videos=videos,
        sort_keys=[(m.key, m.label) for m in keys],
        lower_is_better=[m.key for m in keys if m.better == "lower"],
        notes=[f"{name} is absent: {reason}" for name, reason in result.absent.items()]
        + [f"left out: {name}: {reason}" for name, reason in result.left_out.items()],
    )


def _make_pictures(
    result: RunResult,
    truths: Mapping[str, ViewSource],
    predictions: Mapping[str, ViewSource],
    settings: ScoreSettings,
    order: Order,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Sheets of all objects and turntables of some, as the template wants them."""
    ranked = _ranked(result)
    filmed = set(_picks(ranked, _VIDEOS_EACH))
    shown = (
        ranked if len(ranked) <= _MAX_SHEETS else [ranked[k * len(ranked) // _MAX_SHEETS] for k in range(_MAX_SHEETS)]
    )
    sheets, videos = [], []
    for name in shown:
        truth, predicted = truths[name].load(), predictions[name].load(order)
        pictures = on_background(predicted, settings), on_background(truth, settings)
        scores, caption = _scores_of(result, name)
        start = truth.input_index or 0
        sheets.append({"name": name, "uri": make_sheet(*pictures, start), "scores": scores, "caption": caption})
        if name in filmed and len(truth) > 1:
            videos.append({"name": name, "uri": make_turntable(*pictures, start), "caption": caption})
    return sheets, videos


def _ranked(result: RunResult) -> list[str]:
    first = result.methods[0].name
    psnrs = {name: o.mean(first, BY_KEY["psnr"], with_input=result.input_counts) for name, o in result.objects.items()}
    return sorted(psnrs, key=lambda name: -(psnrs[name] or 0))


def _picks(ranked: Sequence[str], each: int) -> list[str]:
    """The best, the middle and the worst, none twice."""
    middle = max(0, (len(ranked) - each) // 2)
    return list(dict.fromkeys([*ranked[:each], *ranked[middle : middle + each], *ranked[-each:]]))


def _scores_of(result: RunResult, name: str) -> tuple[dict[str, float], str]:
    first, scored = result.methods[0].name, result.objects[name]
    scores, parts = {}, []
    for metric in result.metrics():
        value = scored.mean(first, metric, with_input=result.input_counts)
        if value is not None and (metric.key in HEADLINE or metric.of == "object"):
            scores[metric.key] = round(value, 5)
            if metric.key in HEADLINE:
                parts.append(f"{metric.label} {value:.{metric.digits}f}")
    return scores, " · ".join(parts)

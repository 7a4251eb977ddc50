"""The best, the median and the worst objects of a run, a sheet of pictures each: what a mean does not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from eval.metrics.names import BY_KEY, Metric
from eval.report.media import fit
from eval.report.text import format_table
from eval.scoring.results import RunResult, load_result
from mv3d.errors import Mv3dError
from mv3d.files import check_free, whole_folder
from mv3d.orbit import Facts, Orbit, load_orbit
from mv3d.pixels import WHITE, composite, to_uint8

GROUPS = ("best", "median", "worst")
_COLUMNS = 6  # of views besides the input
_CELL_PX = 96
_CAPTION_PX = 22
_GAP_PX = 6
_WEBP_QUALITY = 70
_SHOWN = ("psnr", "lpips_alex", "lpips_vgg")


@dataclass(frozen=True, eq=False)
class _Exhibit:
    name: str
    truth: Orbit
    predicted: Orbit
    scores: dict[str, float]


def save_gallery(report: Path, work: Path, out: Path, by: str, count: int = 10, *, overwrite: bool = False) -> None:
    """Write ``best.webp median.webp worst.webp`` and ``README.md``, whole or not at all.

    Args:
        report: what ``eval run`` wrote: scores.json is read.
        work: the same run's ``--work``, where the views are.
        out: the folder to write.
        by: the metric to rank by, its mean over the views that count.
        count: objects on a sheet; a third of all, if there are fewer.
        overwrite: replace the folder.

    Raises:
        Mv3dError: if the run, its views or the metric are not there, or there are fewer than three objects.
    """
    check_free(out, overwrite=overwrite)
    result = load_result(report)
    metric = _metric_of(result, by)
    ranked = _ranked(result, metric)
    if len(ranked) < len(GROUPS) or count < 1:
        raise Mv3dError(f"{len(ranked)} objects on sheets of {count}; a gallery needs three objects and sheets of one")
    count = min(count, len(ranked) // len(GROUPS))
    middle = (len(ranked) - count) // 2
    groups = (ranked[:count], ranked[middle : middle + count], ranked[-count:])
    truths, predictions = _view_folders(result, work)
    with whole_folder(out, overwrite=overwrite) as partial:
        parts = [_introduction(result, metric, len(ranked), count)]
        for group, names in zip(GROUPS, groups, strict=True):
            exhibits = [
                _Exhibit(name, load_orbit(truths / name), load_orbit(predictions / name), _scores_of(result, name))
                for name in names
            ]
            sheet = np.concatenate([_draw(exhibit) for exhibit in exhibits])
            Image.fromarray(sheet).save(partial / f"{group}.webp", quality=_WEBP_QUALITY, method=6)
            parts.append(_describe(group, exhibits))
        (partial / "README.md").write_text("\n\n".join(parts) + "\n")


def _metric_of(result: RunResult, by: str) -> Metric:
    known = [m.key for m in result.metrics() if result.means(result.methods[0].name, m, with_input=result.input_counts)]
    if by not in known:
        raise Mv3dError(f"this run has no {by} to rank by; it has {', '.join(known)}")
    return BY_KEY[by]


def _ranked(result: RunResult, metric: Metric) -> list[str]:
    """All orbits of the run, best first."""
    first, sign = result.methods[0].name, -1 if metric.better == "higher" else 1
    values = {name: o.mean(first, metric, with_input=result.input_counts) for name, o in result.objects.items()}
    return sorted(values, key=lambda name: (sign * (values[name] or 0), name))


def _scores_of(result: RunResult, name: str) -> dict[str, float]:
    first = result.methods[0].name
    means = {key: result.objects[name].mean(first, BY_KEY[key], with_input=result.input_counts) for key in _SHOWN}
    return {key: value for key, value in means.items() if value is not None}


def _view_folders(result: RunResult, work: Path) -> tuple[Path, Path]:
    """Where `eval.benchmark.run` keeps true and predicted orbits of a run."""
    method = result.methods[0]
    if method.kind != "model":
        raise Mv3dError(f"{method.name} was given as views; a gallery is made of a run of python -m eval run")
    folder = work / f"{result.protocol['name']}-{result.protocol['fingerprint']}"
    truths, predictions = folder / "truth", folder / f"{method.name}-{method.about['fingerprint']}"
    for views in (truths, predictions):
        if not views.is_dir():
            raise Mv3dError(f"the run's views are not in {views}; name the folder it kept them in", argument="work")
    return truths, predictions


def _draw(exhibit: _Exhibit) -> NDArray[np.uint8]:
    """One object: a caption, below it the input view, at its right true views (above) and predicted ones (below)."""
    count, start = len(exhibit.truth), exhibit.truth.facts.input_index or 0
    views = [(start + round((k + 1) * count / (_COLUMNS + 1))) % count for k in range(_COLUMNS)]
    true_cells, pred_cells = ([_cell(orbit, k) for k in views] for orbit in (exhibit.truth, exhibit.predicted))
    width = _CELL_PX * (_COLUMNS + 1) + _GAP_PX
    canvas = np.full((_CAPTION_PX + 2 * _CELL_PX, width, 3), 255, dtype=np.uint8)
    middle = _CAPTION_PX + _CELL_PX // 2
    canvas[middle : middle + _CELL_PX, :_CELL_PX] = _cell(exhibit.truth, start)
    canvas[_CAPTION_PX : _CAPTION_PX + _CELL_PX, _CELL_PX + _GAP_PX :] = np.concatenate(true_cells, axis=1)
    canvas[_CAPTION_PX + _CELL_PX :, _CELL_PX + _GAP_PX :] = np.concatenate(pred_cells, axis=1)
    picture = Image.fromarray(canvas)
    caption = " · ".join([_title(exhibit), *_numbers(exhibit.scores)])
    draw = ImageDraw.Draw(picture)
    draw.line([(0, 1), (width, 1)], fill=(200, 205, 210))
    draw.text((2, 5), caption, fill=(30, 35, 40), font=ImageFont.load_default(12))
    return np.asarray(picture)


def _cell(orbit: Orbit, view: int) -> NDArray[np.uint8]:
    picture = fit(composite(orbit.frames[view], WHITE), _CELL_PX)
    cell = np.full((_CELL_PX, _CELL_PX, 3), 255, dtype=np.uint8)
    pixels = to_uint8(picture)[:, :_CELL_PX]
    cell[:, : pixels.shape[1]] = pixels
    return cell


def _title(exhibit: _Exhibit) -> str:
    return str(exhibit.truth.facts.extra.get("name") or exhibit.name)


def _numbers(scores: dict[str, float]) -> list[str]:
    return [f"{BY_KEY[key].label} {value:.{BY_KEY[key].digits}f}" for key, value in scores.items()]


def _introduction(result: RunResult, metric: Metric, total: int, count: int) -> str:
    method, protocol = result.methods[0], result.protocol
    return (
        f"# {method.name}: its {count} best, median and worst of {total} objects\n\n"
        f"Ranked by {metric.heading} under {protocol['name']} ({protocol['fingerprint']}), {result.date}; weights, "
        f"settings and version {method.about['fingerprint']}.\n"
        "Of each object: the input view at the left, true views above, predicted ones below."
    )


def _describe(group: str, exhibits: Sequence[_Exhibit]) -> str:
    keys = list(exhibits[0].scores)
    rows = []
    for exhibit in exhibits:
        numbers = [f"{exhibit.scores[key]:.{BY_KEY[key].digits}f}" for key in keys]
        rows.append([_title(exhibit).replace("|", "/"), *numbers, _credit(exhibit.truth.facts).replace("|", "/")])
    table = format_table(["object", *(BY_KEY[key].heading for key in keys), "source and licence"], rows)
    return f"## {group.capitalize()}\n\n![{group}]({group}.webp)\n\n{table}"


def _credit(facts: Facts) -> str:
    return ", ".join(part for part in (facts.source, facts.attribution, facts.licence) if part)

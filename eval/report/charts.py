"""Line charts as SVG text: PSNR over azimuth, learning curves.

Text, so that the page's style sheet colours them and one HTML file holds all; matplotlib would bring eight packages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from eval.metrics.names import BY_KEY
from eval.scoring.results import RunResult
from mv3d.errors import Mv3dError

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 30, 44
_COLOURS = ("#0b5fa5", "#b5442c", "#3f8f4f", "#8a5fa8", "#a07d12", "#57606a", "#c2528b", "#208f8f")
_MOST_POINTS = 400

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def line_chart(title: str, x_label: str, y_label: str, series: Series, *, legend: bool = True) -> str:
    """Draw named lines (x, y) as an SVG element, axes from the data."""
    xs = np.concatenate([np.asarray(x, dtype=float) for x, _ in series.values()])
    ys = np.concatenate([np.asarray(y, dtype=float) for _, y in series.values()])
    x_ticks, y_ticks = _ticks(xs.min(), xs.max()), _ticks(ys.min(), ys.max())
    x_low, x_high = min(x_ticks[0], xs.min()), max(x_ticks[-1], xs.max())
    y_low, y_high = min(y_ticks[0], ys.min()), max(y_ticks[-1], ys.max())
    legend_px = 18 * len(series) + 4 if legend else 0

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / max(x_high - x_low, 1e-12) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / max(y_high - y_low, 1e-12) * (_HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - up, 1)

    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT + legend_px}" role="img" aria-label="{escape(title)}">',
        f'<text x="{_LEFT}" y="18" class="title">{escape(title)}</text>',
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 8}" class="label">{escape(x_label)}</text>',
        f'<text x="14" y="{_HEIGHT / 2}" class="label" transform="rotate(-90 14 {_HEIGHT / 2})">'
        f"{escape(y_label)}</text>",
    ]
    for tick in y_ticks:
        _, y = place(x_low, tick)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" class="tick end">{tick:g}</text>')
    for tick in x_ticks:
        x, bottom = place(tick, y_low)
        parts.append(f'<text x="{x}" y="{bottom + 16}" class="tick middle">{tick:g}</text>')
    for number, (name, (line_x, line_y)) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{x},{y}" for x, y in (place(*p) for p in _thinned(line_x, line_y)))
        width = 2.6 if number == 0 else 1.4
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        if legend:
            y = _HEIGHT + 12 + 18 * number
            parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + 24}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>')
            parts.append(f'<text x="{_LEFT + 32}" y="{y + 4}" class="tick">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def azimuth_chart(result: RunResult, key: str = "psnr") -> str | None:
    """A metric over the azimuth from the input view, the mean over objects; None where azimuths differ or are unknown.

    The input view itself is left out where it is no prediction; the turn is drawn from -180 to 180 degrees.
    """
    turns = {tuple(_relative(o.azimuths_deg, o.input_index)) for o in result.objects.values()}
    if len(turns) != 1 or None in next(iter(turns)):
        return None
    turn = np.array(turns.pop(), dtype=float)
    order = [int(k) for k in np.argsort(turn) if abs(turn[k]) > 1e-6]
    series = {}
    for method in result.methods:
        columns = [o.views[method.name].get(key) for o in result.objects.values()]
        values = np.array([column for column in columns if column is not None], dtype=float)
        if len(values) == len(columns) and np.isfinite(values).all() and order:
            series[method.name] = (turn[order].tolist(), values.mean(axis=0)[order].tolist())
    if not series:
        return None
    metric = BY_KEY[key]
    return line_chart(f"{metric.label} over azimuth", "degrees from the input view", metric.heading, series)


def learning_charts(log: Path) -> list[str]:
    """A chart for each validation figure (or, without any, each loss) in a training log of JSON lines.

    Raises:
        Mv3dError: if it is no such file.
    """
    try:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.strip()]
        steps = [float(line["step"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Mv3dError(f"{log} is no training log of JSON lines ({error!r}); give run/log.jsonl") from error
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for step, line in zip(steps, lines, strict=True):
        for name, value in line.items():
            if isinstance(value, int | float) and ("loss" in name or name.startswith("val_")) and np.isfinite(value):
                xs, ys = curves.setdefault(name, ([], []))
                xs.append(step)
                ys.append(float(value))
    chosen = {name: curve for name, curve in curves.items() if name.startswith("val_")} or curves
    if not chosen:
        raise Mv3dError(f"{log} holds no loss and no validation figure; give the log.jsonl of a training run")
    return [
        line_chart(name.replace("_", " "), "training steps", "", {name: curve}, legend=False)
        for name, curve in chosen.items()
    ]


def _relative(azimuths_deg: Sequence[float | None], input_index: int | None) -> list[float | None]:
    start = azimuths_deg[input_index or 0]
    return [None if a is None or start is None else round((a - start + 180) % 360 - 180, 1) for a in azimuths_deg]


def _thinned(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    step = max(1, len(xs) // _MOST_POINTS)
    return list(zip(xs, ys, strict=True))[::step]


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers that span the data."""
    span = max(high - low, abs(high) * 1e-6, 1e-9)
    raw = span / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda m: abs(m * power - raw))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return [float(round(k * step, 10)) for k in np.arange(first, last + 1)]

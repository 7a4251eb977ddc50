"""Scores as text and as JSON, each with the protocol that they were made by.

Without the protocol a number means little: published PSNRs of one method on one data set lie 4 dB apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eval.metrics.images import MAX_PSNR_DB, SSIM_SIGMA_PX, SSIM_WINDOW_PX
from eval.metrics.lpips import LPIPS_VERSION, Lpips
from eval.score import ANGLE_TOLERANCE_DEG, FolderScores, OrbitScores, Scores
from eval.weights import FETCH_COMMAND, LpipsNet

ABSENT = "absent"


@dataclass(frozen=True)
class Metric:
    """How one field of `Scores` is printed."""

    field: str
    label: str
    digits: int

    def text(self, scores: Scores | None) -> str:
        """The value, or that it is absent."""
        value = None if scores is None else getattr(scores, self.field)
        return ABSENT if value is None else f"{value:.{self.digits}f}"


METRICS = (
    Metric("psnr", "PSNR dB ↑", 2),
    Metric("ssim", "SSIM ↑", 4),
    Metric("lpips_alex", "LPIPS alex ↓", 4),
    Metric("lpips_vgg", "LPIPS vgg ↓", 4),
    Metric("silhouette_iou", "silhouette IoU ↑", 4),
)


@dataclass(frozen=True)
class Protocol:
    """What has to be the same for two numbers to be comparable."""

    objects: int
    orbits: int
    views: str
    resolution_px: str
    input_view: str
    lpips: str
    background: str = "white, both sides composited in sRGB"
    psnr: str = f"per view over all pixels and channels, range 1, at most {MAX_PSNR_DB:.0f} dB"
    ssim: str = (
        f"per view, mean of RGB, Gaussian window {SSIM_WINDOW_PX}x{SSIM_WINDOW_PX}, sigma {SSIM_SIGMA_PX}, range 1, "
        "mirrored border (torchmetrics' defaults)"
    )
    silhouette_iou: str = "alpha >= 0.5, where both sides have alpha"
    alignment: str = f"none; azimuth and elevation must agree to {ANGLE_TOLERANCE_DEG} degrees, sizes exactly"
    averaging: str = "views of an orbit, then orbits"


def make_protocol(
    scores: Sequence[OrbitScores],
    lpips: Sequence[Lpips],
    *,
    input_view: str,
    num_objects: int,
    averaging: str = Protocol.averaging,
) -> Protocol:
    """Describe how ``scores`` were made."""
    views = sorted({len(orbit.views) for orbit in scores})
    sizes = sorted({orbit.size_px for orbit in scores})
    nets = ", ".join(network.net for network in lpips)
    return Protocol(
        objects=num_objects,
        orbits=len(scores),
        views=", ".join(map(str, views)),
        resolution_px=", ".join(f"{width}x{height}" for width, height in sizes),
        input_view=input_view,
        lpips=f"version {LPIPS_VERSION}, {nets}, on the full picture" if nets else ABSENT,
        averaging=averaging,
    )


def format_protocol(protocol: Protocol, absent: Sequence[LpipsNet]) -> str:
    """The protocol as a list, with the command that brings what is absent."""
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in asdict(protocol).items()]
    if absent:
        lines.append(f"- {ABSENT}: LPIPS {', '.join(absent)} (no weights in the cache; fetch them: {FETCH_COMMAND})")
    return "\n".join(lines)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, padded so that it reads as plain text too."""
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    rule = ["-" * width for width in widths]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (header, rule, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def format_scores(scores: FolderScores, protocol: Protocol, absent: Sequence[LpipsNet]) -> str:
    """Means, then one row per view (of a single orbit) or per object, then what was left out and the protocol."""
    with_input, without_input = mean_over_orbits(scores)
    rows = [_row("mean, all views", with_input), _row("mean, without the input view", without_input)]
    if len(scores.objects) == 1:
        (orbit,) = scores.objects.values()
        for k, view in enumerate(orbit.views):
            note = " (input)" if k == orbit.input_index else ""
            rows.append(_row(f"view {k}, azimuth {orbit.azimuths_deg[k]:.1f}{note}", view))
    else:
        rows += [_row(name, orbit.mean_without_input or orbit.mean) for name, orbit in scores.objects.items()]
    parts = [format_table(["", *(metric.label for metric in METRICS)], rows)]
    left_out = [f"- {name}: {reason}" for name, reason in scores.failed.items()]
    left_out += [f"- {name}: no prediction" for name in scores.missing]
    left_out += [f"- {name}: no truth" for name in scores.unknown]
    if left_out:
        parts.append(f"Left out ({len(left_out)}):\n" + "\n".join(left_out))
    parts.append("Protocol:\n" + format_protocol(protocol, absent))
    return "\n\n".join(parts) + "\n"


def scores_as_json(scores: FolderScores, protocol: Protocol, absent: Sequence[LpipsNet]) -> dict[str, Any]:
    """Everything `format_scores` prints and each view's values, ready for `json.dumps`."""
    with_input, without_input = mean_over_orbits(scores)
    return {
        "protocol": asdict(protocol),
        "absent": {f"lpips_{net}": FETCH_COMMAND for net in absent},
        "mean": asdict(with_input),
        "mean_without_input": without_input and asdict(without_input),
        "objects": {
            name: {
                "input_index": orbit.input_index,
                "mean": asdict(orbit.mean),
                "mean_without_input": orbit.mean_without_input and asdict(orbit.mean_without_input),
                "views": [
                    {"azimuth_deg": azimuth_deg, **asdict(view)}
                    for azimuth_deg, view in zip(orbit.azimuths_deg, orbit.views, strict=True)
                ],
            }
            for name, orbit in scores.objects.items()
        },
        "missing": list(scores.missing),
        "unknown": list(scores.unknown),
        "failed": scores.failed,
    }


def mean_over_orbits(scores: FolderScores) -> tuple[Scores, Scores | None]:
    """Means over the orbits, with and without the input view; None if any orbit's input view is unknown."""
    without_input = [orbit.mean_without_input for orbit in scores.objects.values()]
    known = [mean for mean in without_input if mean is not None]
    with_input = Scores.mean([orbit.mean for orbit in scores.objects.values()])
    return with_input, Scores.mean(known) if len(known) == len(without_input) else None


def _row(name: str, scores: Scores | None) -> list[str]:
    return [name, *(metric.text(scores) for metric in METRICS)]

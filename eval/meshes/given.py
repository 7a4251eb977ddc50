"""Anybody's meshes scored against true ones, file by file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.metrics.geometry import NUM_POINTS, score_geometry
from eval.metrics.names import BY_KEY
from eval.metrics.statistics import INTERVALS, bootstrap_mean
from eval.options import Alignment
from eval.report.text import format_table
from mv3d.errors import Mv3dError
from mv3d.export import load_mesh
from mv3d.export.meshes import MESH_SUFFIXES
from mv3d.mesh import Mesh

_ALIGNMENTS: dict[Alignment, str] = {
    "none": "none: the predicted mesh is scored where it stands",
    "yaw": "yaw: the best of 72 turns about the vertical through the true mesh's middle",
    "icp": "icp: the best of those 72 turns, then ICP with rotation, translation and scale",
}


@dataclass(frozen=True)
class MeshScores:
    """Geometry scores by object, and why others have none."""

    alignment: Alignment
    scores: dict[str, dict[str, float]]
    left_out: dict[str, str]


def score_meshes(predicted: Path, truth: Path, alignment: Alignment = "none") -> MeshScores:
    """Score a mesh file against a true one, or all files of a folder that have a namesake (whatever its format).

    Lengths are measured in the true mesh's largest extent. Neither mesh is moved but by the alignment asked for.

    Raises:
        Mv3dError: if nothing matches, or not one pair can be scored.
    """
    predictions, truths = _find_meshes(predicted), _find_meshes(truth)
    if predicted.is_file() and truth.is_file():  # two files need not have one name
        predictions = dict(zip(truths, predictions.values(), strict=True))
    scores, left_out = {}, {}
    for name in sorted(predictions.keys() | truths.keys()):
        try:
            if name not in truths or name not in predictions:
                raise Mv3dError("there is no true mesh" if name in predictions else "there is no predicted mesh")
            scores[name] = score_geometry(*_in_unit(predictions[name], truths[name]), alignment)
        except Mv3dError as reason:
            left_out[name] = str(reason)
    if not scores:
        name, reason = next(iter(left_out.items()))
        raise Mv3dError(f"not one mesh of {predicted} could be scored against {truth}; {name}: {reason}")
    return MeshScores(alignment, scores, left_out)


def format_scores(result: MeshScores) -> str:
    """A table of all objects and their mean, with how it was measured."""
    metrics = [BY_KEY[key] for key in next(iter(result.scores.values()))]
    rows = [
        [name, *(f"{numbers[metric.key]:.{metric.digits}f}" for metric in metrics)]
        for name, numbers in result.scores.items()
    ]
    if len(rows) > 1:
        means = [bootstrap_mean([numbers[metric.key] for numbers in result.scores.values()]) for metric in metrics]
        cells = [
            f"{m.mean:.{metric.digits}f} [{m.low:.{metric.digits}f}, {m.high:.{metric.digits}f}]"
            for m, metric in zip(means, metrics, strict=True)
        ]
        rows.append([f"mean of {len(rows)}", *cells])
    notes = [
        f"alignment {_ALIGNMENTS[result.alignment]}",
        f"lengths in the true mesh's largest extent; {NUM_POINTS} points on what can be seen from outside; F-scores as "
        "if the largest extent were 2; volume IoU on 64 cells to the unit",
    ]
    notes += [INTERVALS] if len(result.scores) > 1 else []
    notes += [f"left out: {name}: {reason}" for name, reason in result.left_out.items()]
    table = format_table(["object", *(metric.heading for metric in metrics)], rows)
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def _find_meshes(where: Path) -> Mapping[str, Path]:
    """Mesh files by their path without suffix, below a folder or the file itself."""
    if where.is_file():
        return {where.stem: where}
    if not where.is_dir():
        raise Mv3dError(f"{where} does not exist; give a mesh file or a folder of them")
    found: dict[str, Path] = {}
    for path in sorted(where.rglob("*")):
        if path.suffix.lower() in MESH_SUFFIXES and path.is_file():
            name = path.relative_to(where).with_suffix("").as_posix()
            if name in found:
                raise Mv3dError(f"{found[name]} and {path} are of one name; keep one of them")
            found[name] = path
    if not found:
        raise Mv3dError(f"{where} holds no mesh ({', '.join(MESH_SUFFIXES)})")
    return found


def _in_unit(predicted: Path, truth: Path) -> tuple[Mesh, Mesh]:
    """Both meshes in the true one's largest extent, its middle at the origin."""
    pred, true = (_load_finite(path) for path in (predicted, truth))
    low, high = true.extent
    side = float((high - low).max())
    if not side > 0:
        raise Mv3dError(f"{truth} has no extent; all of its corners are in one place")
    middle = (low + high) / 2
    return Mesh((pred.vertices - middle) / side, pred.faces), Mesh((true.vertices - middle) / side, true.faces)


def _load_finite(path: Path) -> Mesh:
    mesh = load_mesh(path)
    if not np.isfinite(mesh.vertices).all():
        raise Mv3dError(f"{path} has corners that are no numbers; export it again")
    corners = mesh.vertices[mesh.faces]
    if not np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).any():
        raise Mv3dError(f"{path} has no surface; all of its triangles are lines or points")
    used, index = np.unique(mesh.faces, return_inverse=True)  # loose corners are no part of the surface
    return Mesh(mesh.vertices[used], index.reshape(-1, 3))

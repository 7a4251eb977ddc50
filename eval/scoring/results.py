"""The outcome of a run: scores of methods on objects, with everything needed to read them; one JSON file."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.metrics.names import METRICS, Metric
from eval.metrics.statistics import Estimate, bootstrap_mean
from eval.views.views import ViewSource, object_of
from mv3d.errors import Mv3dError
from mv3d.files import whole_file

RESULT_FILE = "scores.json"
FORMAT_VERSION = 1
_PACKAGES = ("mv3d", "torch", "numpy", "scipy", "pillow", "trimesh", "transformers")
_DIGITS = 6

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Method:
    """Something that predicts views: the model under test, a baseline, or views that were given."""

    name: str
    kind: Literal["model", "given", "baseline"]
    about: dict[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class ObjectResult:
    """One orbit's scores: by method and metric, one for each view, and of the object as a whole."""

    azimuths_deg: list[float | None]
    input_index: int | None
    scored: list[int]
    """The views that count by the protocol, the input view not yet taken out."""
    spread: float
    """Mean squared difference between a true view and the mean of the object's true views."""
    views: dict[str, dict[str, list[float | None]]]
    whole: dict[str, Numbers]

    def mean(self, method: str, metric: Metric, *, with_input: bool) -> float | None:
        """A metric's mean over the views that count, or the object's value; None if it is absent."""
        if metric.of == "object":
            return self.whole.get(method, {}).get(metric.key)
        column = self.views[method].get(metric.key)
        if column is None:
            return None
        counted = [k for k in self.scored if with_input or k != self.input_index]
        if not counted or (not with_input and self.input_index is None):
            return None
        values = [column[k] for k in counted]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if len(known) == len(values) else None


@dataclass(frozen=True)
class RunResult:
    """A run: its protocol, versions, methods and scores."""

    protocol: dict[str, Any]
    """``name title citation fingerprint input_counts settings``, as `eval.protocol` describes them."""
    versions: dict[str, str]
    command: str
    date: str
    methods: list[Method]
    """The method under test first."""
    objects: dict[str, ObjectResult]
    absent: dict[str, str]
    """Metrics and baselines that could not be had, with the reason."""
    warnings: list[str]
    left_out: dict[str, str]

    @property
    def input_counts(self) -> bool:
        """Whether the protocol counts the input view."""
        return bool(self.protocol["input_counts"])

    def means(self, method: str, metric: Metric, *, with_input: bool) -> dict[str, float] | None:
        """A metric by object (the mean over its orbits); None if it is absent for any of them."""
        found: dict[str, list[float]] = {}
        for name, result in self.objects.items():
            value = result.mean(method, metric, with_input=with_input)
            if value is None:
                return None
            found.setdefault(object_of(name), []).append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def estimate(
        self, method: str, metric: Metric, *, with_input: bool, only: Sequence[str] | None = None
    ) -> Estimate | None:
        """A metric's mean over the objects (or ``only`` some) with its interval; None if it is absent."""
        means = self.means(method, metric, with_input=with_input)
        if means is None:
            return None
        return bootstrap_mean([value for name, value in means.items() if only is None or name in only])

    def metrics(self) -> list[Metric]:
        """The metrics that any method has."""
        present = {key for o in self.objects.values() for columns in o.views.values() for key in columns}
        present |= {key for o in self.objects.values() for numbers in o.whole.values() for key in numbers}
        return [metric for metric in METRICS if metric.key in present]

    def varied(self) -> list[str]:
        """The half of the objects whose true views differ most; of an odd number the middle one is in."""
        spreads: dict[str, list[float]] = {}
        for name, result in self.objects.items():
            spreads.setdefault(object_of(name), []).append(result.spread)
        order = sorted(spreads, key=lambda name: float(np.mean(spreads[name])))
        return sorted(order[len(order) // 2 :])


def compare_means(
    first: dict[str, float] | None, second: dict[str, float] | None, only: Sequence[str] | None = None
) -> Estimate | None:
    """The mean of first minus second over the objects both have (and ``only`` names); None if there are none."""
    if first is None or second is None:
        return None
    shared = [name for name in first if name in second and (only is None or name in only)]
    return bootstrap_mean([first[name] - second[name] for name in shared]) if shared else None


def as_column(values: NDArray[np.float64]) -> list[float | None]:
    """Values ready for JSON: rounded, NaN as None."""
    return [round(float(value), _DIGITS) if np.isfinite(value) else None for value in values]


@dataclass(frozen=True, eq=False)
class Finished:
    """A result, and the views it was made of, for the report's pictures."""

    result: RunResult
    truths: dict[str, ViewSource]
    predictions: dict[str, ViewSource]


def save_result(result: RunResult, path: Path) -> None:
    """Write the file, whole or not at all."""
    text = json.dumps({"mv3d_eval": FORMAT_VERSION, **asdict(result)}, allow_nan=False, separators=(",", ":"))
    with whole_file(path) as partial:
        partial.write_text(text + "\n")


def load_result(path: Path) -> RunResult:
    """Read a result file, or the one in a folder.

    Raises:
        Mv3dError: if there is none, or it was not written by this version of the format.
    """
    file = path / RESULT_FILE if path.is_dir() else path
    try:
        tree = json.loads(file.read_text())
        if tree.pop("mv3d_eval") != FORMAT_VERSION:
            raise Mv3dError(f"{file} is of another format version than {FORMAT_VERSION}; run the evaluation again")
        methods = [Method(**method) for method in tree.pop("methods")]
        objects = {name: ObjectResult(**known) for name, known in tree.pop("objects").items()}
        return RunResult(methods=methods, objects=objects, **tree)
    except Mv3dError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Mv3dError(f"{file} is no result of python -m eval ({error!r}); give a run's folder") from error


def describe_versions() -> dict[str, str]:
    """What the scores were made with: packages, Python, processor, and the repository's commit where git knows it."""
    known = {}
    for name in _PACKAGES:
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            continue
    known |= {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        if done.returncode == 0:
            known["commit"] = done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        pass
    return known

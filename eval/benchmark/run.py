"""The whole benchmark: truth rendered, the model run, its views lifted, everything scored. Each step is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.benchmark.predict import Predictor, check_asked, load_orbit_seconds, predict_all
from eval.meshes.lifting import LiftJob, lift_all, lifter_version, share_of_truth
from eval.metrics.perceptual import load_perceptual_metrics
from eval.protocol import Protocol
from eval.scoring.baselines import LIFTED
from eval.scoring.comparison import Comparison, score_comparison
from eval.scoring.results import Finished, Method
from eval.scoring.score import ScoreSettings
from eval.truth.objects import list_objects, render_truth
from eval.views.views import ViewSource, find_views, object_of
from mv3d.dataset import Entry, find_collections, read_manifest
from mv3d.errors import Mv3dError
from render.sources import SourceObject


@dataclass(frozen=True)
class BenchmarkRun:
    """Where a run's files are and what it is made of."""

    protocol: Protocol
    objects: Path
    work: Path
    """Kept between runs: truth by protocol, predictions by model; nothing in it is a result."""
    training: Path | None = None
    limit: int | None = None
    """Take the first so many objects: for a trial; the result says so."""
    workers: int | None = None
    dists: bool = False

    @property
    def folder(self) -> Path:
        """What belongs to this protocol's settings."""
        return self.work / f"{self.protocol.name}-{self.protocol.fingerprint()}"


def run_benchmark(run: BenchmarkRun, predictor: Predictor) -> Finished:
    """Do all steps for one model.

    Raises:
        Mv3dError: if there is nothing to score, or the model does not make the protocol's views.
    """
    protocol = run.protocol
    check_asked(predictor, protocol)
    items, truths, left_out = prepare_truth(run)
    folders, about = predict_all(predictor, truths, protocol, run.folder / f"{predictor.name}-{predictor.fingerprint}")
    whole: dict[str, dict[str, dict[str, float]]] = {predictor.name: {}, LIFTED: {}}
    absent: dict[str, str] = {}
    methods = [Method(predictor.name, "model", about)]
    predictions = {predictor.name: _as_sources(folders)}
    if protocol.here.geometry != "none":
        lifted = run.folder / f"lifted-{lifter_version()}"
        for name, scores in lift_all(_jobs_of_truth(items, truths, lifted), run.workers):
            whole[LIFTED][name] = scores
        model_scores = run.folder / f"{predictor.name}-{predictor.fingerprint}-{lifter_version()}"
        jobs = [
            LiftJob(name, folders[name], truth, items[name], model_scores / f"{name}.json")
            for name, truth in truths.items()
        ]
        for name, scores in lift_all(jobs, run.workers):
            whole[predictor.name][name] = scores | share_of_truth(scores, whole[LIFTED][name])
        methods.append(Method(LIFTED, "baseline", {"lifter": lifter_version()}))
        predictions[LIFTED] = _as_sources({name: lifted / "views" / name for name in truths})
    else:
        absent[LIFTED] = f"{protocol.name} lifts no views"
    for name, folder in folders.items():
        seconds = sum(load_orbit_seconds(folder).values())
        whole[predictor.name].setdefault(name, {})["seconds"] = round(seconds, 2)
    networks, without = load_perceptual_metrics(protocol.here.lpips, protocol.here.clip, dists=run.dists)
    comparison = Comparison(
        truths=_as_sources(truths),
        methods=methods,
        predictions=predictions,
        protocol=protocol,
        settings=ScoreSettings.of(protocol),
        training=_training_orbits(run),
        whole=whole,
        left_out=left_out,
        absent=absent,
    )
    return Finished(
        score_comparison(comparison, networks, without, run.work / "scores"),
        _as_sources(truths),
        predictions[predictor.name],
    )


def prepare_truth(run: BenchmarkRun) -> tuple[dict[str, SourceObject], dict[str, Path], dict[str, str]]:
    """Render what is not rendered yet: objects and true orbits by ``<object_id>/0``, and what is left out.

    Raises:
        Mv3dError: if no object can be rendered.
    """
    protocol = run.protocol
    objects = list_objects(run.objects, protocol.here.split, run.work)[
        : min(run.limit or 10**9, protocol.here.num_objects)
    ]
    truths, left_out = render_truth(objects, protocol, run.folder / "truth", run.workers)
    if not truths:
        raise Mv3dError(f"no object of {run.objects} can be rendered: {next(iter(left_out.values()))}")
    return {f"{item.object_id}/0": item for item in objects}, truths, left_out


def training_orbits(root: Path) -> list[Path]:
    """Orbit folders: of rendered collections their train split, and all that are in no collection.

    Raises:
        Mv3dError: if there are none.
    """
    orbits = [source.path for source in find_views(root).values() if source.kind == "orbit"]
    manifests = {folder: read_manifest(folder) for folder in find_collections(root)}
    training = [path for path in orbits if _is_to_train_on(path, manifests)]
    if not training:
        raise Mv3dError(f"{root} holds no training orbits; give a folder that python -m render orbits wrote")
    return training


def _is_to_train_on(orbit: Path, manifests: Mapping[Path, Mapping[str, Entry]]) -> bool:
    """By the nearest manifest above an orbit; what it does not name is not."""
    collection = next((folder for folder in orbit.parents if folder in manifests), None)
    if collection is None:
        return True
    entry = manifests[collection].get(object_of(orbit.relative_to(collection).as_posix()))
    return entry is not None and (entry.split or "train") == "train"


def _training_orbits(run: BenchmarkRun) -> list[Path]:
    """Those of the given folder, or of the objects' own train split where the protocol has one."""
    if run.training is not None:
        return training_orbits(run.training)
    if run.protocol.here.split is None or run.limit is not None:
        return []
    objects = list_objects(run.objects, "train", run.work)
    orbits, _ = render_truth(objects, run.protocol, run.folder / "train", run.workers)
    return list(orbits.values())


def _jobs_of_truth(items: dict[str, SourceObject], truths: dict[str, Path], lifted: Path) -> list[LiftJob]:
    return [
        LiftJob(name, truth, truth, items[name], lifted / "scores" / f"{name}.json", lifted / "views" / name)
        for name, truth in truths.items()
    ]


def _as_sources(folders: dict[str, Path]) -> dict[str, ViewSource]:
    return {name: ViewSource(folder, "orbit") for name, folder in folders.items()}

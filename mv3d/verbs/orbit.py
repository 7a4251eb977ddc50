"""``mv3d orbit``."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mv3d.command_line import Verbose, print_error
from mv3d.options import OrbitOptions
from mv3d.progress import StageBar

if TYPE_CHECKING:
    from mv3d.jobs import Result
    from mv3d.model.checkpoints import ModelFacts


_USUAL_SECONDS = {"loading": 8.0, "coarse": 8.0, "views": 4.0}  # of two cores, with the bundled model
_USUAL_SECONDS_OF_MESH = {"surface": 0.5, "texture": 6.0}


@dataclass(frozen=True)
class OrbitVerb:
    """Turn pictures of an object into orbits: views from all around, with their cameras, and a video."""

    images: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="(required)")
    ]
    """Photos or cut-outs, or folders of them."""
    options: Annotated[OrbitOptions, tyro.conf.arg(name="")]
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """The orbit folder, by default IMAGE's name with _orbit; of several pictures, where their orbit folders go."""
    json: bool = False
    """Print one line of JSON per orbit."""
    verbose: Verbose = False

    def run(self) -> int:
        """Make the orbits; returns the exit code."""
        with StageBar(self._usual_seconds(), quiet=self.json) as bar:
            if self.images:
                bar.update(self.images[0].name, "loading")  # before anything that takes its time is imported
            return self._make_orbits(bar)

    def _make_orbits(self, bar: StageBar) -> int:
        from mv3d.jobs import is_batch, make_orbits, plan_jobs

        failed = False
        results = make_orbits(
            plan_jobs(self.images, self.out),
            self.options,
            keep_existing=is_batch(self.images),
            command=shlex.join(["mv3d", *sys.argv[1:]]),
            on_step=lambda job, *step: bar.update(job.picture.name, *step),
            on_model=None if self.options.model == "mini" else partial(_say_licence, bar),
        )
        for result in results:
            bar.end()
            if result.error:
                failed = True
                print_error(result.error, self)
            else:
                print(_as_json(result) if self.json else _as_text(result), flush=True)
        return 2 if failed else 0

    def _usual_seconds(self) -> dict[str, float]:
        """How long each stage that there is takes, roughly."""
        stages = _USUAL_SECONDS | (_USUAL_SECONDS_OF_MESH if self.options.mesh else {})
        return {stage: seconds for stage, seconds in stages.items() if not (self.options.preview and stage == "views")}


def _say_licence(bar: StageBar, facts: ModelFacts) -> None:
    bar.say(f"mv3d: model {facts.name}; licence of its weights: {facts.licence}")


def _as_json(result: Result) -> str:
    folder = result.job.folder
    facts = {
        "picture": str(result.job.picture),
        "orbit": None if result.is_clip else str(folder),
        "clip": str(folder) if result.is_clip else None,
        "video": str(folder / ("clip.mp4" if result.is_clip else "orbit.mp4")),
        "sheet": str(folder / "sheet.png"),
        "mesh": str(result.mesh) if result.mesh else None,
        "kept": result.kept,
        "seconds": round(result.seconds, 2),
    }
    return json.dumps(facts)


def _as_text(result: Result) -> str:
    if result.kept and not result.seconds:
        return f"{result.job.folder}: kept, it was there already"
    if result.kept and result.mesh:
        return f"{result.mesh} in {result.seconds:.1f} s, of the orbit that was there already"
    if result.is_clip:
        return (
            f"{result.job.folder}: clip in {result.seconds:.1f} s. It is no orbit: this model is told no cameras, so "
            "nobody knows where its frames are seen from, and there is nothing to lift"
        )
    return f"{result.job.folder}: {result.mesh.name + ' and ' if result.mesh else ''}orbit in {result.seconds:.1f} s"

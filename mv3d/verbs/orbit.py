"""``mv3d orbit``."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mv3d.command_line import StepBar, Verbose, print_error
from mv3d.options import OrbitOptions

if TYPE_CHECKING:
    from mv3d.jobs import Job, Result
    from mv3d.model.checkpoints import ModelFacts


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
        from mv3d.jobs import is_batch, make_orbits, plan_jobs

        jobs = plan_jobs(self.images, self.out)
        command = shlex.join(["mv3d", *sys.argv[1:]])
        bars: dict[Path, StepBar] = {}

        def on_step(job: Job, done: int, total: int) -> None:
            bars.setdefault(job.picture, StepBar(job.picture.name)).update(done, total)

        failed = False
        results = make_orbits(
            jobs,
            self.options,
            keep_existing=is_batch(self.images),
            command=command,
            on_step=on_step,
            on_model=None if self.options.model == "mini" else _print_licence,
        )
        for result in results:
            if result.job.picture in bars:
                bars[result.job.picture].close()
            if result.error:
                failed = True
                print_error(result.error, self)
            else:
                print(_as_json(result) if self.json else _as_text(result), flush=True)
        return 2 if failed else 0


def _print_licence(facts: ModelFacts) -> None:
    print(f"mv3d: model {facts.name}; licence of its weights: {facts.licence}", file=sys.stderr)


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

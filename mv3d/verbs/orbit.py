"""``mv3d orbit``."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import tyro

from mv3d.command_line import Verbose, print_error
from mv3d.errors import Mv3dError
from mv3d.options import OrbitOptions, PromptOptions
from mv3d.progress import StageBar
from mv3d.prompt import PROMPT_FILE

if TYPE_CHECKING:
    from mv3d.jobs import Job, Result
    from mv3d.model.checkpoints import ModelFacts


_USUAL_SECONDS = {"loading": 3.0, "coarse": 3.0, "views": 8.0}  # of two cores, with the bundled model
_USUAL_SECONDS_OF_MESH = {"surface": 0.5, "texture": 6.0}
_USUAL_SECONDS_OF_PROMPT = 30.0  # of SDXL on a card of 8 GB


@dataclass(frozen=True)
class OrbitVerb:
    """Turn pictures of an object into orbits: views from all around, with their cameras, and a video."""

    images: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="(required, or --prompt)"),
    ]
    """Photos or cut-outs, or folders of them."""
    options: Annotated[OrbitOptions, tyro.conf.arg(name="")]
    prompt: Annotated[str | None, tyro.conf.arg(metavar="WORDS")] = None
    """What the picture shows, in place of one: it is made by --text-model, and kept in the orbit folder."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """The orbit folder, by default IMAGE's name with _orbit; of several pictures, where their orbit folders go."""
    json: bool = False
    """Print one line of JSON per orbit."""
    verbose: Verbose = False

    def run(self) -> int:
        """Make the orbits; returns the exit code."""
        with StageBar(self._usual_seconds(), quiet=self.json) as bar, TemporaryDirectory(prefix="mv3d-") as place:
            if self.images or self.prompt is not None:
                # before anything that takes its time is imported
                bar.update(self.images[0].name if self.images else "prompt", "loading")
            return self._make_orbits(bar, Path(place))

    def _jobs(self, place: Path) -> tuple[Job, ...]:
        from mv3d.jobs import plan_jobs, plan_prompt
        from mv3d.prompt import Prompt

        if self.prompt is None:
            self._check_no_prompt()
            return plan_jobs(self.images, self.out)
        if self.images:
            raise Mv3dError(
                f"{self.images[0]} and a prompt are two pictures to begin with; give one of them", argument="prompt"
            )
        prompt = Prompt(self.prompt, self.options.words, self.options.seed, self.options.matte != "none")
        return (plan_prompt(prompt, self.out, place),)

    def _check_no_prompt(self) -> None:
        for field in fields(PromptOptions):
            value = getattr(self.options.words, field.name)
            if value != field.default:
                raise Mv3dError(f"{field.name} {value} is for a prompt, and there is none", argument="prompt")

    def _make_orbits(self, bar: StageBar, place: Path) -> int:
        from mv3d.jobs import is_batch, make_orbits

        failed = False
        results = make_orbits(
            self._jobs(place),
            self.options,
            keep_existing=bool(self.images) and is_batch(self.images),
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
        if self.prompt is not None:
            stages = {"loading": stages["loading"], "picture": _USUAL_SECONDS_OF_PROMPT} | stages
        return {stage: seconds for stage, seconds in stages.items() if not (self.options.preview and stage == "views")}


def _say_licence(bar: StageBar, facts: ModelFacts) -> None:
    bar.say(f"mv3d: model {facts.name}; licence of its weights: {facts.licence}")


def _as_json(result: Result) -> str:
    folder = result.job.folder
    facts = {
        "picture": str(result.job.picture if result.job.prompt is None else folder / PROMPT_FILE),
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

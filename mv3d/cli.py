"""The command line ``mv3d``: parsing, calling and printing; every verb's work is a function elsewhere."""

from __future__ import annotations

import io
import json
import shlex
import sys
import time
import traceback
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mv3d.errors import Mv3dError
from mv3d.options import OrbitOptions

if TYPE_CHECKING:
    from tqdm import tqdm

    from mv3d.jobs import Job, Result
    from mv3d.model.checkpoints import ModelFacts


@dataclass(frozen=True)
class Orbit:
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
    verbose: bool = False
    """Show the traceback of errors."""

    def run(self) -> int:
        """Make the orbits; returns the exit code."""
        from mv3d.jobs import is_batch, make_orbits, plan_jobs

        jobs = plan_jobs(self.images, self.out)
        command = shlex.join(["mv3d", *sys.argv[1:]])
        bar = _StepBar()
        failed = False
        results = make_orbits(
            jobs,
            self.options,
            keep_existing=is_batch(self.images),
            command=command,
            on_step=bar.update,
            on_model=None if self.options.model == "mini" else _print_licence,
        )
        for result in results:
            bar.close()
            if result.error:
                failed = True
                _print_error(result.error, verbose=self.verbose)
            else:
                print(_as_json(result) if self.json else _as_text(result), flush=True)
        return 2 if failed else 0


@dataclass(frozen=True)
class Lift:
    """Lift the views of an orbit folder to a textured mesh."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """An orbit folder, or any folder of cut-out views with a transforms.json."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="MESH")]
    """The mesh file; its suffix says the format: .glb, .obj, .ply."""
    overwrite: bool = False
    """Replace the file if it exists."""
    json: bool = False
    """Print one line of JSON."""
    verbose: bool = False
    """Show the traceback of errors."""

    def run(self) -> int:
        """Lift the orbit; returns the exit code."""
        from mv3d.files import check_free
        from mv3d.orbit import load_orbit

        check_free(self.out, overwrite=self.overwrite)
        orbit = load_orbit(self.folder)

        from mv3d.export import save_mesh
        from mv3d.lift import lift_orbit

        started = time.perf_counter()
        mesh = lift_orbit(orbit)
        save_mesh(mesh, self.out)
        seconds = round(time.perf_counter() - started, 2)
        if self.json:
            facts = {"orbit": str(self.folder), "mesh": str(self.out), "faces": len(mesh.faces), "seconds": seconds}
            print(json.dumps(facts))
        else:
            print(f"{self.out}: {len(mesh.faces)} faces in {seconds:.1f} s")
        return 0


Verb = Annotated[Orbit, tyro.conf.subcommand("orbit")] | Annotated[Lift, tyro.conf.subcommand("lift")]


def main(arguments: list[str] | None = None) -> int:
    """One picture of an object in, a consistent turntable and a textured mesh out."""
    verbose = False
    try:
        verb = _parse(arguments)
        verbose = verb.verbose
        return verb.run()
    except (Mv3dError, OSError) as error:
        _print_error(error, verbose=verbose)
        return 2
    except KeyboardInterrupt:
        print("mv3d: stopped", file=sys.stderr)
        return 130


def _parse(arguments: list[str] | None) -> Orbit | Lift:
    shown = io.StringIO()
    try:
        with redirect_stderr(shown):
            return tyro.cli(
                Verb,  # pyright: ignore[reportArgumentType]  (a union, which tyro makes subcommands of)
                prog="mv3d",
                description=main.__doc__,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as stop:
        if not stop.code:  # it was --help
            raise
        raise Mv3dError(_without_box(shown.getvalue())) from None


def _without_box(message: str) -> str:
    """Flatten tyro's framed message to one line: a title, then sections divided by rules (ASCII where it must be)."""
    lines = [line.strip("╭╮╰╯│─ ") for line in message.splitlines()[1:]]
    return " ".join(line if line.strip("-") else ";" for line in lines).strip("; ").replace(" ;", ";")


def _print_error(error: Exception, *, verbose: bool) -> None:
    if verbose:
        traceback.print_exception(error)
    print("mv3d:", " ".join(str(error).split()), file=sys.stderr)


def _print_licence(facts: ModelFacts) -> None:
    print(f"mv3d: model {facts.name}; licence of its weights: {facts.licence}", file=sys.stderr)


def _as_json(result: Result) -> str:
    folder = result.job.folder
    facts = {
        "picture": str(result.job.picture),
        "orbit": str(folder),
        "video": str(folder / "orbit.mp4"),
        "sheet": str(folder / "sheet.png"),
        "mesh": str(result.mesh) if result.mesh else None,
        "kept": result.kept,
        "seconds": round(result.seconds, 2),
    }
    return json.dumps(facts)


def _as_text(result: Result) -> str:
    if result.kept:
        return f"{result.job.folder}: kept, it was there already"
    return f"{result.job.folder}: {result.mesh.name + ' and ' if result.mesh else ''}orbit in {result.seconds:.1f} s"


class _StepBar:
    """One progress bar on stderr per picture, only where somebody watches."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def update(self, job: Job, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, desc=job.picture.name, unit="step", disable=None, leave=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


if __name__ == "__main__":
    sys.exit(main())

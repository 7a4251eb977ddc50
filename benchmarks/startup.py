"""What does one ``mv3d orbit`` take its CPU time for: importing, loading weights, computing, writing?

    python -m benchmarks.startup assets/chair.png [--preview] [--model mini]

One orbit in this process, which has imported nothing before, into a folder that goes; CPU seconds and their shares, and
what is imported by package. All comes one after the other, though an orbit imports beside its coarse stage. Once to
fill the caches of bytecode and files, then once more for the figures.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from unittest.mock import patch

_LEAST_SECONDS = 0.03  # of a package that is named


class ImportClock:
    """Counts CPU seconds of importing from now on, by package; a module's do not hold those of what it imports."""

    def __init__(self) -> None:
        self.by_package: defaultdict[str, float] = defaultdict(float)
        self._inner: list[float] = []
        loaders: tuple[Any, ...] = (SourceFileLoader, ExtensionFileLoader)
        for loader in loaders:
            loader.exec_module = self._timed(loader.exec_module)

    @property
    def seconds(self) -> float:
        """All of them."""
        return sum(self.by_package.values())

    def _timed(self, execute: Callable[[Any, ModuleType], None]) -> Callable[[Any, ModuleType], None]:
        def timed(loader: Any, module: ModuleType) -> None:
            began = time.process_time()
            self._inner.append(0.0)
            try:
                execute(loader, module)
            finally:
                took = time.process_time() - began
                self.by_package[module.__name__.split(".")[0]] += took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        return timed


class StageClock:
    """Counts CPU seconds of stages that follow each other, without those of importing."""

    def __init__(self, imports: ImportClock) -> None:
        self.by_stage: defaultdict[str, float] = defaultdict(float)
        self._imports, self._stage = imports, "beginning"
        self._since = self._now()

    def begin(self, stage: str) -> str:
        """From now on it is this one; returns the one before."""
        now, before = self._now(), self._stage
        self.by_stage[before] += now - self._since
        self._since, self._stage = now, stage
        return before

    def during(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, a stage of its own in whichever it comes."""

        def timed(*given: Any, **named: Any) -> Any:
            before = self.begin(stage)
            try:
                return work(*given, **named)
            finally:
                self.begin(before)

        return timed

    def _now(self) -> float:
        return time.process_time() - self._imports.seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--preview", action="store_true")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--elevation", type=float, default=12.0, help="degrees, of the picture's camera")
    given = parser.parse_args()
    imports = ImportClock()
    stages = StageClock(imports)
    from mv3d.jobs import Job, load_asked, make_orbits, plan_jobs
    from mv3d.model.staged import MaybeStaged, StagedModel
    from mv3d.options import OrbitOptions
    from mv3d.orbit import save_orbit

    def load(options: OrbitOptions) -> MaybeStaged:
        model = stages.during("reading weights", load_asked)(options)
        if isinstance(model, StagedModel):
            return replace(model, load=stages.during("reading weights", model.load))
        return model

    def on_step(_job: Job, stage: str, _done: int, _total: int) -> None:
        stages.begin(stage)

    options = OrbitOptions(model=given.model, elevation=given.elevation, preview=given.preview)
    writing = patch("mv3d.jobs.save_orbit", stages.during("writing", save_orbit))
    after = patch.object(StagedModel, "prepare", lambda self: None)  # what is imported beside a stage would count in it
    with writing, after, TemporaryDirectory() as place:
        (result,) = make_orbits(
            plan_jobs([given.picture], Path(place) / "orbit"),
            options,
            keep_existing=False,
            on_step=on_step,
            load=load,
        )
    stages.begin("end")
    if result.error is not None:
        raise SystemExit(str(result.error))
    whole = time.process_time()
    parts = {"importing": imports.seconds, **stages.by_stage}
    for name, took in parts.items():
        print(f"{name:16} {took:6.2f} CPU s  {took / whole:4.0%}")
    print(f"{'in all':16} {whole:6.2f} CPU s")
    packages = sorted(imports.by_package.items(), key=lambda one: -one[1])
    named = [f"{name} {took:.2f}" for name, took in packages if took >= _LEAST_SECONDS]
    print(f"imported: {', '.join(named)}")


if __name__ == "__main__":
    main()

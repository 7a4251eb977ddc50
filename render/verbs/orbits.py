"""``python -m render orbits`` and ``depth``: what works on objects, in many processes."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mv3d.command_line import Verbose
from mv3d.errors import Mv3dError
from render.settings import CameraPath, Pass, Renderer, Settings
from render.verbs.objects import ObjectOptions

if TYPE_CHECKING:
    from mv3d.dataset import Entry


@dataclass(frozen=True)
class RenderOptions:
    """How objects are rendered."""

    num_views: int = Settings.num_views
    """Views in an orbit."""
    size: int = Settings.size_px
    """Width and height in pixels."""
    seed: int = Settings.seed
    """Draws lights, elevations and turns of the objects."""
    elevation: Annotated[tuple[float, float], tyro.conf.arg(metavar="LOW HIGH")] = (
        Settings.elevation_low_deg,
        Settings.elevation_high_deg,
    )
    """Range, in degrees."""
    yaw: float | None = None
    """Turn every object by so many degrees; drawn for each orbit if not given."""
    path: CameraPath = Settings.path
    """How the camera moves."""
    passes: tuple[Pass, ...] = ()
    """What to write beside the frames."""
    renderer: Renderer = Settings.renderer
    """The ray caster, or Cycles, which needs Blender."""
    samples: int = Settings.samples
    """Of Cycles, in each pixel."""
    environments: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of .hdr and .exr pictures that light Cycles' scenes; drawn lamps and sky if not given."""

    def settings(self) -> Settings:
        """As the renderer takes them."""
        return Settings(
            num_views=self.num_views,
            size_px=self.size,
            seed=self.seed,
            elevation_low_deg=self.elevation[0],
            elevation_high_deg=self.elevation[1],
            yaw_deg=self.yaw,
            renderer=self.renderer,
            samples=self.samples,
            environments=self.environments,
            path=self.path,
            passes=self.passes,
        )


@dataclass(frozen=True)
class WorkerOptions:
    """The processes on this machine."""

    workers: int | None = None
    """Processes; one for each core if not given."""
    timeout: float = 300.0
    """Seconds that one orbit may take."""

    def check(self) -> None:
        """Raise `Mv3dError` if they cannot be."""
        if self.workers is not None and self.workers < 1:
            raise Mv3dError(f"{self.workers} processes: give 1 or more", argument="workers")
        if not self.timeout > 0:
            raise Mv3dError(f"{self.timeout:g} seconds for an orbit: give more than 0", argument="timeout")


@dataclass(frozen=True)
class OrbitsVerb:
    """Render every object of SOURCE to DIR/OBJECT/K/; again to go on where it was stopped."""

    objects: Annotated[ObjectOptions, tyro.conf.arg(name="")]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    """Where the orbit folders and manifest.jsonl go."""
    rendering: Annotated[RenderOptions, tyro.conf.arg(name="")]
    processes: Annotated[WorkerOptions, tyro.conf.arg(name="")]
    num_orbits: int = 1
    """Orbits of each object."""
    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None
    """Only every N-th object from the I-th on, I from 0: for job arrays."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Work on a Ray cluster (auto, or host:port)."""
    dry_run: bool = False
    """Render five objects, say what all will cost, and stop."""
    verbose: Verbose = False

    def run(self) -> int:
        """Render; returns the exit code, 1 if there is not one orbit."""
        from mv3d.blender import find_blender
        from render.farm.farm import parse_shard, render_sources, shard_of

        if self.num_orbits < 1:
            raise Mv3dError(f"{self.num_orbits} orbits of an object: give 1 or more", argument="num_orbits")
        self.processes.check()
        settings, manifest = self.rendering.settings(), "manifest.jsonl"
        if settings.renderer == "cycles" and self.ray is None:
            find_blender()  # one line now instead of one for every object
        objects = self.objects.find()
        if self.shard is not None:
            index, count = parse_shard(self.shard)
            objects, manifest = shard_of(objects, index, count), f"manifest-{index}-of-{count}.jsonl"
        workers, timeout_s = self.processes.workers, self.processes.timeout
        if self.dry_run:
            from render.farm.estimate import estimate

            print(estimate(objects, settings, num_orbits=self.num_orbits, workers=workers, timeout_s=timeout_s))
            return 0
        entries = render_sources(
            objects,
            self.out,
            settings,
            num_orbits=self.num_orbits,
            workers=workers,
            timeout_s=timeout_s,
            ray_address=self.ray,
            manifest_name=manifest,
        )
        _print_outcome(entries, self.out / manifest)
        if not objects:  # no mistake: a job array may have more tasks than there are objects
            print(f"render: share {self.shard} has no object", file=sys.stderr)
        return 0 if not objects or any(entry.orbits for entry in entries) else 1


@dataclass(frozen=True)
class DepthVerb:
    """Add depth maps to the orbits of SOURCE that DIR holds."""

    objects: Annotated[ObjectOptions, tyro.conf.arg(name="")]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    """Where the orbit folders are."""
    processes: Annotated[WorkerOptions, tyro.conf.arg(name="")]
    verbose: Verbose = False

    def run(self) -> int:
        """Render depth; returns the exit code, 1 if an object failed."""
        from render.farm.depth import add_depth

        self.processes.check()
        failed = add_depth(
            self.objects.find(), self.out, workers=self.processes.workers, timeout_s=self.processes.timeout
        )
        for object_id, reason in failed.items():
            print(f"render: {object_id}: {reason}", file=sys.stderr)
        return 1 if failed else 0


def _print_outcome(entries: list[Entry], manifest: Path) -> None:
    splits = Counter(entry.split for entry in entries if entry.orbits)
    sides = ", ".join(f"{splits[side]} {side}" for side in ("train", "val", "test"))
    print(f"{sum(splits.values())} objects rendered ({sides}); see {manifest}")
    reasons = Counter(entry.failed.split(":")[0] for entry in entries if entry.failed is not None)
    for reason, count in reasons.most_common():
        print(f"{count} not rendered: {reason}")

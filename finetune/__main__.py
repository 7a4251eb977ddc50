"""``python -m finetune CONFIG``: train a new model's stages, or adapt a base, continuing where it stopped.

Several processes: ``torchrun --nproc-per-node N -m finetune CONFIG``, or ``accelerate launch -m finetune CONFIG``.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from mv3d.command_line import Verbose, run_program
from mv3d.errors import Mv3dError
from mv3d.files import whole_file

if TYPE_CHECKING:
    from finetune.config import RunConfig, StageName
    from finetune.data import UsedOrbits
    from finetune.log import TrainingLog
    from finetune.processes import Processes
    from mv3d.pack import Pack


@dataclass(frozen=True)
class TrainVerb:
    """Train a model's stages, or adapt a model, continuing where the last run stopped."""

    config: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
    """A YAML file; presets are in configs/."""
    stage: Literal["autoencoder", "coarse", "diffusion"] | None = None
    """Train only this stage."""
    minutes: float = math.inf
    """Stop after so long, saved; run again to go on."""
    resume_from: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Begin with another run's weights, optimizer and step: its folder, or a checkpoint such as RUN/diffusion/best."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY=VALUE")] = ()
    """Override a key of the config, e.g. coarse.loop.steps=10; give it again for another."""
    dry_run: bool = False
    """Print the resolved config, parameters, memory and steps per day."""
    processes: int | None = None
    """With --dry-run: of so many processes, and not of those that were started."""
    verbose: Verbose = False

    def run(self) -> int:
        """Train; returns the exit code.

        Raises:
            Mv3dError: for a mistake of the user's, a full disk or a lack of memory.
        """
        try:
            return _run(self)
        except BrokenPipeError:  # nobody reads what is printed any more
            raise
        except OSError as error:  # a full disk, a folder that is not the user's
            where = f"{error.filename}: " if error.filename else ""
            raise Mv3dError(
                f"{where}{error.strerror or error}; when that is mended, the same command goes on"
            ) from error
        except (MemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
            raise Mv3dError(
                "not enough memory: lower loop.batch_size or raise loop.accumulate, and see what a dry run says"
            ) from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 for a mistake of the user's, 130 if interrupted before the end."""
    stopped = "interrupted; the same command goes on from the last checkpoint"
    return run_program("finetune", TrainVerb, __doc__, arguments, prog="python -m finetune", stopped=stopped)


def _is_lack_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(word in str(error) for word in ("out of memory", "allocate memory"))


def _run(options: TrainVerb) -> int:
    from finetune.read_config import load_config

    if not options.minutes >= 0:
        raise Mv3dError(f"{options.minutes:g} minutes: give 0 or more", argument="minutes")
    if options.processes is not None and not options.dry_run:
        raise Mv3dError(
            "a number of processes is for a dry run; torchrun --nproc-per-node starts so many", argument="processes"
        )
    deadline = time.monotonic() + 60 * options.minutes
    config = load_config(options.config, list(options.set))
    if options.stage and options.stage not in config.stages:
        known = ", ".join(config.stages)
        raise Mv3dError(f"{options.config} has no stage {options.stage}; it has {known}", argument="stage")
    names = (options.stage,) if options.stage else config.stages
    begins = _beginnings(options.resume_from, names)
    if config.pictures:
        from finetune.photographs import read_photographs

        read_photographs(config.pictures)  # one that cannot be is told before hours of other work
    resolved = dataclasses.asdict(config)
    if options.dry_run:
        from finetune.dry_run import describe

        started = int(os.environ.get("WORLD_SIZE", "1"))
        found = describe(config, started if options.processes is None else options.processes)
        print(json.dumps(resolved | {"estimate": found}, indent=1, default=str))
        return 0

    from finetune.folder import held_folder
    from finetune.processes import joined_processes

    with joined_processes() as processes, held_folder(config.run) if processes.is_main else nullcontext():
        if processes.is_main:
            with whole_file(config.run / "config.json") as partial:
                partial.write_text(json.dumps(resolved, indent=1, default=str) + "\n")
        processes.wait()  # until what killed processes left is gone
        _train(config, names, deadline, processes, begins)
        if processes.is_main:
            from finetune.export import export_model

            gc.collect()  # layers under checkpointing hold themselves, and would stand beside those to write
            made = export_model(config, processes.device if config.base is None else "cpu")
            if made is not None:
                print(made)
    return 0


def _beginnings(place: Path | None, names: Sequence[StageName]) -> dict[StageName, Path]:
    """The checkpoint of another run that each stage begins with."""
    from finetune.checkpoint import STATE, find_checkpoint

    if place is None:
        return {}
    if len(names) > 1 and (place / STATE).is_file():
        stages = ", ".join(names)
        raise Mv3dError(
            f"{place} is one stage's checkpoint, and this trains {stages}; train that stage alone",
            argument="resume_from",
        )
    return {name: find_checkpoint(place, name) for name in names}


def _train(
    config: RunConfig,
    names: Sequence[StageName],
    deadline: float,
    processes: Processes,
    begins: Mapping[StageName, Path],
) -> None:
    """Train stage after stage until one is stopped; what was stopped is continued."""
    from finetune.data import RunOrbits, packed

    reported: set[Path] = set()
    for name in names:
        pack = None
        if config.base is None:
            size_px, data = config.frames_px(name), config.data_of(name)
            folder = config.run / (f"pack-{size_px}" if data is config.data else f"pack-{name}")
            pack = packed(data, folder, size_px, processes)
            if processes.is_main and folder not in reported:
                reported.add(folder)
                _note(config.run, data, RunOrbits.of_pack(pack, config.validation_objects).used())
        if not _train_stage(name, config, pack, deadline, processes, begins.get(name)):
            break


def _train_stage(
    name: StageName,
    config: RunConfig,
    pack: Pack | None,
    deadline: float,
    processes: Processes,
    begin: Path | None,
) -> bool:
    from finetune.checkpoint import latest_checkpoint
    from finetune.loop import train
    from finetune.stages import DiffusionTraining, FlowTraining, make_stage

    stage = make_stage(name, config, pack, processes)
    if isinstance(stage, DiffusionTraining | FlowTraining) and pack is None and processes.is_main:
        _note(config.run, config.data, stage.clips.used)
        print(f"finetune: licence of {config.base}: {stage.model.facts.licence}", file=sys.stderr)
    own = latest_checkpoint(config.run / name)
    if config.start_from is not None and own is None and not isinstance(stage, FlowTraining):
        stage.start_from(config.start_from)
    if begin is not None and processes.is_main:
        goes_on = f"begins with {begin}" if own is None else f"has {own.name} already and goes on from there"
        print(f"finetune: {config.run / name} {goes_on}", file=sys.stderr)
    loop = getattr(config, name).loop
    log = _open_log(config, config.run / name, processes)
    try:
        done = train(
            stage,
            loop,
            config.run / name,
            log,
            seed=config.seed,
            deadline=deadline,
            processes=processes,
            begin=begin,
            score_first=config.init == "base",
        )
    finally:
        log.close()
        if isinstance(stage, DiffusionTraining | FlowTraining):
            stage.close()
    if not done and processes.is_main:
        print(f"finetune: {name} stopped before step {loop.steps}; the same command continues it", file=sys.stderr)
    return done


def _note(run: Path, data: Sequence[Path], used: UsedOrbits) -> None:
    """Say which orbits are used, and remember whose they are."""
    from finetune.data import note_objects

    used.report()
    note_objects(run, data, used)


def _open_log(config: RunConfig, run: Path, processes: Processes) -> TrainingLog:
    from finetune.log import TrainingLog

    settings = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return TrainingLog(run, wandb_project=config.wandb_project, config=settings, enabled=processes.is_main)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())

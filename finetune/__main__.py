"""``python -m finetune CONFIG``: train a new model's stages, or adapt a base, continuing where it stopped.

Several processes: ``torchrun --nproc-per-node N -m finetune CONFIG``, or ``accelerate launch -m finetune CONFIG``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from mv3d.errors import Mv3dError
from mv3d.files import whole_file

if TYPE_CHECKING:
    from finetune.config import RunConfig, StageName
    from finetune.data import UsedOrbits
    from finetune.log import TrainingLog
    from finetune.processes import Processes
    from mv3d.pack import Pack


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 for a mistake of the user's, 130 if interrupted before the end."""
    parser = argparse.ArgumentParser(prog="python -m finetune", description=__doc__)
    parser.add_argument("config", type=Path, help="a YAML file; presets are in configs/")
    parser.add_argument(
        "--stage", choices=("autoencoder", "volume", "coarse", "diffusion"), help="train only this stage"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after this long, saved; run again to go on"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. volume.loop.steps=10"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved config, parameters, memory and steps per day"
    )
    parser.add_argument(
        "--processes", type=int, help="with --dry-run: of so many processes, and not of those that were started"
    )
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except Mv3dError as error:
        told = str(error)
    except OSError as error:  # a full disk, a folder that is not the user's
        where = f"{error.filename}: " if error.filename else ""
        told = f"{where}{error.strerror or error}; when that is mended, the same command goes on"
    except (MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        told = "there is not enough memory; lower loop.batch_size or raise loop.accumulate, and see what --dry-run says"
    except KeyboardInterrupt:
        print("finetune: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    print("finetune:", " ".join(told.split()), file=sys.stderr)
    return 2


def _is_lack_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(word in str(error) for word in ("out of memory", "allocate memory"))


def _run(options: argparse.Namespace) -> int:
    from finetune.read_config import load_config

    if not options.minutes >= 0:
        raise Mv3dError(f"--minutes {options.minutes}: give 0 or more")
    if options.processes is not None and not options.dry_run:
        raise Mv3dError("--processes is for --dry-run; torchrun --nproc-per-node starts so many")
    deadline = time.monotonic() + 60 * options.minutes
    config = load_config(options.config, options.set)
    if options.stage and options.stage not in config.stages:
        known = ", ".join(config.stages)
        raise Mv3dError(f"--stage {options.stage}: {options.config} has no such stage; it has {known}")
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
        _train(config, (options.stage,) if options.stage else config.stages, deadline, processes)
        if processes.is_main:
            from finetune.export import export_model

            made = export_model(config, processes.device)
            if made is not None:
                print(made)
    return 0


def _train(config: RunConfig, names: Sequence[StageName], deadline: float, processes: Processes) -> None:
    """Train stage after stage until one is stopped; what was stopped is continued."""
    from finetune.data import packed, used_orbits

    reported: set[Path] = set()
    for name in names:
        pack = None
        if config.base is None:
            size_px, data = config.frames_px(name), config.data_of(name)
            folder = config.run / (f"pack-{size_px}" if data is config.data else f"pack-{name}")
            pack = packed(data, folder, size_px, processes)
            if processes.is_main and folder not in reported:
                reported.add(folder)
                _note(config.run, data, used_orbits(pack, config.validation_objects))
        if not _train_stage(name, config, pack, deadline, processes):
            break


def _train_stage(name: StageName, config: RunConfig, pack: Pack | None, deadline: float, processes: Processes) -> bool:
    from finetune.checkpoint import latest_checkpoint
    from finetune.loop import train
    from finetune.stages import DiffusionTraining, make_stage

    stage = make_stage(name, config, pack, processes)
    if isinstance(stage, DiffusionTraining) and pack is None and processes.is_main:
        _note(config.run, config.data, stage.clips.used)
        print(f"finetune: licence of {config.base}: {stage.model.facts.licence}", file=sys.stderr)
    if config.start_from is not None and latest_checkpoint(config.run / name) is None:
        stage.start_from(config.start_from)
    loop = getattr(config, name).loop
    log = _open_log(config, config.run / name, processes)
    try:
        done = train(stage, loop, config.run / name, log, seed=config.seed, deadline=deadline, processes=processes)
    finally:
        log.close()
        if isinstance(stage, DiffusionTraining):
            stage.close()
    if not done and processes.is_main:
        print(f"finetune: {name} stopped before step {loop.steps}; the same command continues it", file=sys.stderr)
    return done


def _note(run: Path, data: Sequence[Path], used: UsedOrbits) -> None:
    """Say which orbits are used, and remember whose they are."""
    from finetune.export import note_objects

    used.report()
    note_objects(run, data, (entry.object_id for entry in used.training))


def _open_log(config: RunConfig, run: Path, processes: Processes) -> TrainingLog:
    from finetune.log import TrainingLog

    settings = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return TrainingLog(run, wandb_project=config.wandb_project, config=settings, enabled=processes.is_main)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())

"""``python -m finetune CONFIG``: train a model's stages, or adapt a model, continuing where the last leg stopped.

Several processes: ``torchrun --nproc-per-node N -m finetune CONFIG``, or ``accelerate launch -m finetune CONFIG``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from mv3d.command_line import Verbose, run_program
from mv3d.errors import Mv3dError
from mv3d.files import whole_file

if TYPE_CHECKING:
    from finetune.config import RunConfig
    from finetune.log import TrainingLog
    from finetune.processes import Processes
    from finetune.recipe import Recipe


@dataclass(frozen=True)
class TrainVerb:
    """Train a model's stages, or adapt a model, continuing where the last run stopped."""

    config: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
    """A YAML file; presets are in configs/."""
    stage: Literal["autoencoder", "volume", "coarse", "diffusion"] | None = None
    """Train only this stage."""
    minutes: float = math.inf
    """Stop after so long, saved; run again to go on."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY=VALUE")] = ()
    """Override a key of the config, e.g. volume.loop.steps=10; give it again for another."""
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
    from finetune.config import load_config
    from finetune.recipe import Recipe

    if not options.minutes >= 0:
        raise Mv3dError(f"--minutes {options.minutes}: give 0 or more")
    if options.processes is not None and not options.dry_run:
        raise Mv3dError("--processes is for --dry-run; torchrun --nproc-per-node starts so many")
    deadline = time.monotonic() + 60 * options.minutes
    config = load_config(options.config, options.set)
    if isinstance(config, Recipe) and options.stage:
        raise Mv3dError(f"--stage {options.stage}: {options.config} adapts a model and has no stages")
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
        processes.wait()  # until what killed legs left is gone
        if isinstance(config, Recipe):
            _adapt(config, deadline, processes)
        else:
            _train_stages(config, (options.stage,) if options.stage else None, deadline, processes)
    return 0


def _train_stages(config: RunConfig, names: tuple[str, ...] | None, deadline: float, processes: Processes) -> None:
    from finetune.assemble import assemble_model, note_objects
    from finetune.checkpoint import latest_checkpoint
    from finetune.data import packed, tell_orbits, validation_orbits
    from finetune.loop import train
    from finetune.stages import STAGES

    told: set[Path] = set()
    for name in names or tuple(STAGES):
        if getattr(config, name) is None:
            continue
        size_px, data = config.frames_px(name), config.data_of(name)
        folder = config.run / (f"pack-{size_px}" if data is config.data else f"pack-{name}")
        pack = packed(data, folder, size_px, processes)
        if processes.is_main and folder not in told:
            told.add(folder)
            training = [pack.entries[k] for k in pack.indices("train")]
            tell_orbits(training, len(validation_orbits(pack, config.validation_objects)), pack.left_out)
            note_objects(config.run, data, (entry.object_id for entry in training))
        stage = STAGES[name](config, pack, processes.device)
        if config.start_from is not None and latest_checkpoint(config.run / name) is None:
            stage.start_from(config.start_from)
        loop = getattr(config, name).loop
        log = _open_log(config, config.run / name, processes)
        try:
            done = train(stage, loop, config.run / name, log, seed=config.seed, deadline=deadline, processes=processes)
        finally:
            log.close()
        if not done:
            _say_stopped(name, loop.steps, processes)
            break
    if processes.is_main:
        assemble_model(config, processes.device)


def _adapt(recipe: Recipe, deadline: float, processes: Processes) -> None:
    from finetune.assemble import note_objects, save_adaptation
    from finetune.data import tell_orbits
    from finetune.loop import train
    from finetune.stages.adapt import AdaptTraining

    stage = AdaptTraining(recipe, processes)
    if processes.is_main:
        tell_orbits(stage.training, stage.num_validation, stage.left_out)
        note_objects(recipe.run, recipe.data, stage.trained_on)
        print(f"finetune: licence of {recipe.base}: {stage.model.facts.licence}", file=sys.stderr)
    run = recipe.run / "adapt"
    log = _open_log(recipe, run, processes)
    try:
        if not train(stage, recipe.loop, run, log, seed=recipe.seed, deadline=deadline, processes=processes):
            _say_stopped("adapt", recipe.loop.steps, processes)
    finally:
        stage.close()
        log.close()
    if not processes.is_main:
        return
    if recipe.loop.shard and processes.count > 1:  # this process holds slices only: put it together from the files
        stage = AdaptTraining(recipe, dataclasses.replace(processes, count=1))
    print(save_adaptation(recipe, stage))


def _open_log(config: RunConfig | Recipe, run: Path, processes: Processes) -> TrainingLog:
    from finetune.log import TrainingLog

    settings = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return TrainingLog(run, wandb_project=config.wandb_project, config=settings, enabled=processes.is_main)


def _say_stopped(name: str, steps: int, processes: Processes) -> None:
    if processes.is_main:
        print(f"finetune: {name} stopped before step {steps}; the same command continues it", file=sys.stderr)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())

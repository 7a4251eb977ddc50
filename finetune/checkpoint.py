"""What training leaves to continue from: run/step-0000200/{network,ema,optimizer}.safetensors and state.json.

A folder that has the name is whole, unless the disk spoils it: its files' checksums are in state.json, and where one is
not as it was, the checkpoint before counts. Only what is trained is in it: frozen weights are where the run got them
from. Beside the last ones stays ``run/best``, of the step whose held-out loss was the least.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetune.checkpoint_tensors import fill, fill_optimizer, optimizer_tensors, trained_tensors
from finetune.ema import Ema
from finetune.processes import Processes, whole
from mv3d.errors import Mv3dError
from mv3d.files import read_json, whole_folder
from mv3d.model.weights import load_strict

Network = TypeVar("Network", bound=nn.Module)

KEPT = 2
"""So many checkpoints of a run stay, and the best one."""
BEST = "best"

_FILES = ("network", "ema", "optimizer")
STATE = "state.json"
_NAME = re.compile(r"step-(\d+)")
_MIB = 2**20
_CHUNK_BYTES = 2**22


@dataclass
class TrainingState:
    """What a checkpoint holds besides its three files of tensors."""

    step: int = 0
    seconds: float = 0.0
    optimizer: str = ""
    """Whose moments these are; older checkpoints do not say."""
    best_loss: float | None = None
    """The least held-out loss so far, of the checkpoint that is kept for it or of the step before the first."""
    checksums: dict[str, int] = field(default_factory=dict)
    """CRC-32 of the files, by name."""


class _Damaged(Exception):
    """A checkpoint's file is not what was written; the message says which and why."""


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return run / f"step-{step:07d}"


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run."""
    return next(iter(_checkpoints(run)), None)


def _checkpoints(run: Path) -> list[Path]:
    """All checkpoints, the newest first; what is only called alike (``step-0000004-backup``) is none."""
    if not run.is_dir():
        return []
    matches = filter(None, (_NAME.fullmatch(path.name) for path in run.iterdir()))
    steps = sorted({int(match[1]) for match in matches}, reverse=True)
    return [folder for folder in (checkpoint_folder(run, step) for step in steps) if folder.is_dir()]


def save_checkpoint(
    run: Path,
    network: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    processes: Processes | None = None,
) -> None:
    """Write a checkpoint, then delete all but it and the `KEPT` - 1 before; with several processes all must call it.

    Raises:
        Mv3dError: if it cannot be written, e.g. on a full disk; the older checkpoints are then as they were.
    """
    target = checkpoint_folder(run, state.step)
    if not _write(target, network, ema, optimizer, state, processes):
        return
    there = _checkpoints(run)
    at = there.index(target)
    for old in there[:at] + there[at + KEPT :]:  # later ones are damaged, or this one would not have been made again
        shutil.rmtree(old)


def save_best(
    run: Path,
    network: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    processes: Processes | None = None,
) -> None:
    """Write the checkpoint that stays until a better one comes, in place of the one before; else as `save_checkpoint`.

    Processes that have all weights need not call it, but for the main one.
    """
    _write(run / BEST, network, ema, optimizer, state, processes)


def _write(
    target: Path,
    network: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    processes: Processes | None,
) -> bool:
    """Whether this process is the one that writes."""
    files = {
        "network": trained_tensors(network),
        "ema": trained_tensors(network) | ema.values,
        "optimizer": optimizer_tensors(optimizer),
    }
    # Slices are put together one by one on every process, since that takes them all.
    tensors = {
        name: {key: whole(value).detach().cpu().contiguous() for key, value in content.items()}
        for name, content in files.items()
    }
    if processes is not None and not processes.is_main:
        return False
    state.optimizer = type(optimizer).__name__
    try:
        with whole_folder(target, overwrite=True) as partial:
            for name, content in tensors.items():
                save_file(content, partial / f"{name}.safetensors")
                state.checksums[name] = _checksum(partial / f"{name}.safetensors")
            (partial / STATE).write_text(json.dumps(asdict(state)))
    except (OSError, SafetensorError) as error:
        needed = sum(value.nbytes for content in tensors.values() for value in content.values()) / _MIB
        kept = latest_checkpoint(target.parent)
        raise Mv3dError(
            f"{target} cannot be written ({error}); it takes {needed:.0f} MiB beside the older ones. Free space and run"
            f" again: it goes on from {kept.name if kept else 'the start'}"
        ) from error
    return True


def find_checkpoint(place: Path, stage: str) -> Path:
    """The checkpoint that a folder is, or holds: a run's newest one of a stage, or a stage's newest.

    Raises:
        Mv3dError: if there is none.
    """
    if (place / STATE).is_file():
        return place
    found = latest_checkpoint(place / stage) or latest_checkpoint(place)
    if found is None:
        raise Mv3dError(
            f"{place} holds no checkpoint of the stage {stage}; name a run's folder, or a checkpoint in one, such as "
            f"{Path('RUN') / stage / BEST}",
            argument="resume_from",
        )
    return found


def load_checkpoint(
    run: Path,
    network: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    processes: Processes | None = None,
    begin: Path | None = None,
) -> TrainingState | None:
    """Bring everything to the newest checkpoint that is whole; None if the run has none.

    With several processes all must call it, and all take the same one. A damaged one is told of, and passed over.

    Args:
        run: of one stage.
        network: is filled, as far as it is trained.
        ema: is filled.
        optimizer: is filled.
        processes: that train together.
        begin: a checkpoint of another run, with which this one begins if it has none yet. What was best there does not
            count here.

    Raises:
        Mv3dError: if all are damaged, or if one is of another shape than the config makes (the keys are listed), or of
            another optimizer.
    """
    processes = processes or Processes()
    damage: list[str] = []
    for folder in _checkpoints(run):
        try:
            state = _read_state(folder)
            files = {name: _read(folder, name, state) for name in _FILES}
        except _Damaged as error:
            state, files = None, {}
            damage.append(str(error))
        if processes.any(state is None) or state is None:
            if processes.is_main:
                _say_passed_over(folder, damage)
            continue
        _fill_all(network, ema, optimizer, files, state, folder)
        return state
    _refuse_if_all_damaged(run, damage)
    if begin is None:
        return None
    try:
        state = _read_state(begin)
        files = {name: _read(begin, name, state) for name in _FILES}
    except _Damaged as error:
        raise Mv3dError(f"{begin} is damaged ({error}); name another checkpoint", argument="resume_from") from error
    _fill_all(network, ema, optimizer, files, state, begin)
    return TrainingState(state.step, state.seconds)


def _fill_all(
    network: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    files: Mapping[str, Mapping[str, Tensor]],
    state: TrainingState,
    folder: Path,
) -> None:
    if state.optimizer not in ("", type(optimizer).__name__):
        raise Mv3dError(
            f"{folder} is {state.optimizer}'s, and the config's optimizer is {type(optimizer).__name__}; keep the "
            "optimizer, or begin another run with start_from or base"
        )
    fill(trained_tensors(network), files["network"], folder)
    fill(trained_tensors(network) | ema.values, files["ema"], folder, only=ema.values)
    fill_optimizer(optimizer, files["optimizer"], folder)


def load_ema(run: Path, network: Network) -> Network:
    """The averaged weights of a run's newest checkpoint that is whole, frozen, in evaluation mode.

    Raises:
        Mv3dError: if there is none, or if it is of another shape.
    """
    damage: list[str] = []
    for folder in _checkpoints(run):
        try:
            given = _read(folder, "ema", _read_state(folder))
        except _Damaged as error:
            damage.append(str(error))
            _say_passed_over(folder, damage)
            continue
        if any(not parameter.requires_grad for parameter in network.parameters()):
            fill(trained_tensors(network), given, folder)
        else:
            load_strict(network, given, str(folder))
        return network.eval().requires_grad_(False)
    _refuse_if_all_damaged(run, damage)
    raise Mv3dError(f"{run} holds no checkpoint yet; train this stage first")


# -------------------------------------------------------------------------------------------------
# Reading what may be damaged.


def _read_state(folder: Path) -> TrainingState:
    path = folder / STATE
    _check_is_file(path)
    try:
        state = TrainingState(**read_json(path))
        named = _NAME.fullmatch(folder.name) is None or checkpoint_folder(folder.parent, state.step) == folder
        known = isinstance(state.step, int) and named
        if not (known and math.isfinite(state.seconds) and isinstance(state.checksums, dict)):
            raise ValueError("not of this step")
    except (OSError, ValueError, TypeError) as error:
        raise _Damaged(f"{path}: {error}") from error
    return state


def _read(folder: Path, name: str, state: TrainingState) -> dict[str, Tensor]:
    path = folder / f"{name}.safetensors"
    _check_is_file(path)
    try:
        if name in state.checksums and _checksum(path) != state.checksums[name]:
            raise _Damaged(f"{path}: its bytes are not those that were written")
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise _Damaged(f"{path}: {error}") from error


def _check_is_file(path: Path) -> None:
    if not path.is_file():  # to read from a pipe might never end
        raise _Damaged(f"{path} is missing")


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found = zlib.crc32(chunk, found)
    return found


def _say_passed_over(folder: Path, damage: list[str]) -> None:
    why = damage[-1] if damage else "on another machine"
    print(f"finetune: {folder} is damaged ({why}); the checkpoint before it is taken", file=sys.stderr)


def _refuse_if_all_damaged(run: Path, damage: list[str]) -> None:
    if damage:
        raise Mv3dError(f"{run}: no checkpoint can be read ({damage[-1]}); delete {run} to train this stage anew")

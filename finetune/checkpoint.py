"""What training leaves to continue from: run/step-0000200/{network,ema,optimizer}.safetensors and state.json.

A folder that has the name is whole, unless the disk spoils it: its files' checksums are in state.json, and where one is
not as it was, the checkpoint before counts. Only what is trained is in it: frozen weights are where the run got them
from.
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

from finetune.ema import Ema
from finetune.processes import Processes, local, sliced_like, whole
from mv3d.errors import Mv3dError
from mv3d.files import read_json, whole_folder
from mv3d.model.weights import check_fit, load_strict

Network = TypeVar("Network", bound=nn.Module)

KEPT = 2
"""So many checkpoints of a run stay."""

_FILES = ("network", "ema", "optimizer")
_STATE = "state.json"
_NAME = re.compile(r"step-(\d+)")
_LIKE_PARAMETER = {"exp_avg", "exp_avg_sq", "momentum"}
_MIB = 2**20
_CHUNK_BYTES = 2**22


@dataclass
class TrainingState:
    """What a checkpoint holds besides its three files of tensors."""

    step: int = 0
    seconds: float = 0.0
    optimizer: str = ""
    """Whose moments these are; older checkpoints do not say."""
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
    files = {
        "network": _trained(network),
        "ema": _trained(network) | ema.values,
        "optimizer": _optimizer_tensors(optimizer),
    }
    # Slices are put together one by one on every process, since that takes them all.
    tensors = {
        name: {key: whole(value).detach().cpu().contiguous() for key, value in content.items()}
        for name, content in files.items()
    }
    if processes is not None and not processes.is_main:
        return
    target = checkpoint_folder(run, state.step)
    state.optimizer = type(optimizer).__name__
    try:
        with whole_folder(target, overwrite=True) as partial:
            for name, content in tensors.items():
                save_file(content, partial / f"{name}.safetensors")
                state.checksums[name] = _checksum(partial / f"{name}.safetensors")
            (partial / _STATE).write_text(json.dumps(asdict(state)))
    except (OSError, SafetensorError) as error:
        needed = sum(value.nbytes for content in tensors.values() for value in content.values()) / _MIB
        kept = latest_checkpoint(run)
        raise Mv3dError(
            f"{target} cannot be written ({error}); it takes {needed:.0f} MiB beside the older ones. Free space and run"
            f" again: it goes on from {kept.name if kept else 'the start'}"
        ) from error
    there = _checkpoints(run)
    at = there.index(target)
    for old in there[:at] + there[at + KEPT :]:  # later ones are damaged, or this one would not have been made again
        shutil.rmtree(old)


def load_checkpoint(
    run: Path,
    network: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    processes: Processes | None = None,
) -> TrainingState | None:
    """Bring everything to the newest checkpoint that is whole; None if the run has none.

    With several processes all must call it, and all take the same one. A damaged one is told of, and passed over.

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
        if state.optimizer not in ("", type(optimizer).__name__):
            raise Mv3dError(
                f"{folder} is {state.optimizer}'s, and the config's optimizer is {type(optimizer).__name__}; keep the "
                "optimizer, or begin another run with start_from or base"
            )
        _fill(_trained(network), files["network"], folder)
        _fill(_trained(network) | ema.values, files["ema"], folder, only=ema.values)
        _fill_optimizer(optimizer, files["optimizer"], folder)
        return state
    _refuse_if_all_damaged(run, damage)
    return None


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
            _fill(_trained(network), given, folder)
        else:
            load_strict(network, given, str(folder))
        return network.eval().requires_grad_(False)
    _refuse_if_all_damaged(run, damage)
    raise Mv3dError(f"{run} holds no checkpoint yet; train this stage first")


# -------------------------------------------------------------------------------------------------
# Reading what may be damaged.


def _read_state(folder: Path) -> TrainingState:
    path = folder / _STATE
    _check_is_file(path)
    try:
        state = TrainingState(**read_json(path))
        known = isinstance(state.step, int) and checkpoint_folder(folder.parent, state.step) == folder
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


# -------------------------------------------------------------------------------------------------
# Between files and networks.


def _trained(network: nn.Module) -> dict[str, Tensor]:
    """A network's state less its frozen parameters, sharing memory."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return {key: value.detach() for key, value in network.state_dict().items() if key not in frozen}


@torch.no_grad()
def _fill(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], folder: Path, only: Mapping[str, Tensor] | None = None
) -> None:
    check_fit(own, given, str(folder))
    for key in only if only is not None else own:
        local(own[key]).copy_(local(sliced_like(given[key], own[key])))


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return optimizer.param_groups[0]["params"]


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    states = ((k, optimizer.state.get(p, {})) for k, p in enumerate(_parameters(optimizer)))
    found = {f"{k}.{key}": value for k, state in states for key, value in state.items()}
    counts = {key: torch.tensor(value) for key, value in found.items() if type(value) is int}  # bitsandbytes' steps
    return {key: value for key, value in found.items() if isinstance(value, Tensor)} | counts


def _placed(value: Tensor, parameter: nn.Parameter) -> Tensor | int:
    """What `_optimizer_tensors` gave, as the parameter's optimizer had it."""
    if value.shape == parameter.shape:  # and in its memory format, which fused optimizers take for granted
        return torch.empty_like(parameter).copy_(value)
    if value.ndim:
        return sliced_like(value, parameter)
    return value.to(parameter.device) if value.is_floating_point() else int(value)


def _fill_optimizer(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor], folder: Path) -> None:
    parameters = _parameters(optimizer)
    for k, parameter in enumerate(parameters):
        own = {key.removeprefix(f"{k}."): value for key, value in moments.items() if key.startswith(f"{k}.")}
        if any(key in _LIKE_PARAMETER and value.shape != parameter.shape for key, value in own.items()):
            raise Mv3dError(
                f"{folder / 'optimizer.safetensors'} does not fit the network: parameter {k} is of another shape"
            )
        if own:
            optimizer.state[parameter] = {key: _placed(value, parameter) for key, value in own.items()}

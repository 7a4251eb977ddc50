"""What a leg of training leaves for the next one: run/step-0000200/{network,ema,optimizer}.safetensors and state.json.

A folder that has the name is whole. Only what is trained is in it: frozen weights are where the run got them from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetune.average import Average
from finetune.processes import Processes, local, sliced_like, whole
from mv3d.errors import Mv3dError
from mv3d.files import whole_folder
from mv3d.model.weights import check_fit, load_strict

Network = TypeVar("Network", bound=nn.Module)

_MIB = 2**20


@dataclass
class TrainingState:
    """What a checkpoint holds besides its three files of tensors."""

    step: int = 0
    seconds: float = 0.0


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return run / f"step-{step:07d}"


def latest_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    return max(run.glob("step-*"), default=None)


def save_checkpoint(
    run: Path,
    network: nn.Module,
    average: Average,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    processes: Processes | None = None,
) -> None:
    """Write a checkpoint, then delete the older ones; with several processes all must call it.

    Raises:
        Mv3dError: if it cannot be written, e.g. on a full disk; the older checkpoint is then as it was.
    """
    files = {
        "network": _trained(network),
        "ema": _trained(network) | average.values,
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
    try:
        with whole_folder(target, overwrite=True) as partial:
            for name, content in tensors.items():
                save_file(content, partial / f"{name}.safetensors")
            (partial / "state.json").write_text(json.dumps(asdict(state)))
    except (OSError, SafetensorError) as error:
        needed = sum(value.nbytes for content in tensors.values() for value in content.values()) / _MIB
        kept = latest_checkpoint(run)
        raise Mv3dError(
            f"{target} cannot be written ({error}); it takes {needed:.0f} MiB beside the last one. Free space and run"
            f" again: it goes on from {kept.name if kept else 'the start'}"
        ) from error
    for old in run.glob("step-*"):
        if old != target:
            shutil.rmtree(old)


def load_checkpoint(
    run: Path, network: nn.Module, average: Average, optimizer: torch.optim.Optimizer
) -> TrainingState | None:
    """Bring everything to the newest checkpoint; None if the run has none.

    Raises:
        Mv3dError: when the checkpoint is of another shape than the config makes (the keys are listed).
    """
    for partial in run.glob(".partial-*-step-*"):  # what a killed leg was writing
        shutil.rmtree(partial, ignore_errors=True)
    folder = latest_checkpoint(run)
    if folder is None:
        return None
    _fill(_trained(network), load_file(folder / "network.safetensors"), folder)
    _fill(_trained(network) | average.values, load_file(folder / "ema.safetensors"), folder, only=average.values)
    moments = load_file(folder / "optimizer.safetensors")
    for k, parameter in enumerate(_parameters(optimizer)):
        own = {key.removeprefix(f"{k}."): value for key, value in moments.items() if key.startswith(f"{k}.")}
        if own:
            optimizer.state[parameter] = {key: _placed(value, parameter) for key, value in own.items()}
    return TrainingState(**json.loads((folder / "state.json").read_text()))


def load_ema(run: Path, network: Network) -> Network:
    """The averaged weights of a run's newest checkpoint, frozen, in evaluation mode."""
    folder = latest_checkpoint(run)
    if folder is None:
        raise Mv3dError(f"{run} holds no checkpoint yet; train this stage first")
    state = load_file(folder / "ema.safetensors")
    if any(not parameter.requires_grad for parameter in network.parameters()):
        _fill(_trained(network), state, folder)
    else:
        load_strict(network, state, str(folder))
    return network.eval().requires_grad_(False)


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
    if value.ndim:
        return sliced_like(value, parameter)
    return value.to(parameter.device) if value.is_floating_point() else int(value)

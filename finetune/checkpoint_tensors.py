"""Between the tensors of a checkpoint and the network, averages and optimizer that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from finetune.processes import local, sliced_like
from mv3d.errors import Mv3dError
from mv3d.model.weights import check_fit

_LIKE_PARAMETER = {"exp_avg", "exp_avg_sq", "momentum"}


def trained_tensors(network: nn.Module) -> dict[str, Tensor]:
    """A network's state less its frozen parameters, sharing memory."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return {key: value.detach() for key, value in network.state_dict().items() if key not in frozen}


@torch.no_grad()
def fill(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], folder: Path, only: Mapping[str, Tensor] | None = None
) -> None:
    """Copy tensors of the same names over one's own, or over some of them.

    Raises:
        Mv3dError: if they are of other names or shapes; ``folder`` is named.
    """
    check_fit(own, given, str(folder))
    for key in only if only is not None else own:
        local(own[key]).copy_(local(sliced_like(given[key], own[key])))


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return optimizer.param_groups[0]["params"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and counts, by the number of the parameter."""
    states = ((k, optimizer.state.get(p, {})) for k, p in enumerate(_parameters(optimizer)))
    found = {f"{k}.{key}": value for k, state in states for key, value in state.items()}
    counts = {key: torch.tensor(value) for key, value in found.items() if type(value) is int}  # bitsandbytes' steps
    return {key: value for key, value in found.items() if isinstance(value, Tensor)} | counts


def _placed(value: Tensor, parameter: nn.Parameter) -> Tensor | int:
    """What `optimizer_tensors` gave, as the parameter's optimizer had it."""
    if value.shape == parameter.shape:  # and in its memory format, which fused optimizers take for granted
        return torch.empty_like(parameter).copy_(value)
    if value.ndim:
        return sliced_like(value, parameter)
    return value.to(parameter.device) if value.is_floating_point() else int(value)


def fill_optimizer(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor], folder: Path) -> None:
    """Give an optimizer what `optimizer_tensors` gave.

    Raises:
        Mv3dError: if moments are of another shape than their parameter.
    """
    parameters = _parameters(optimizer)
    for k, parameter in enumerate(parameters):
        own = {key.removeprefix(f"{k}."): value for key, value in moments.items() if key.startswith(f"{k}.")}
        if any(key in _LIKE_PARAMETER and value.shape != parameter.shape for key, value in own.items()):
            raise Mv3dError(
                f"{folder / 'optimizer.safetensors'} does not fit the network: parameter {k} is of another shape"
            )
        if own:
            optimizer.state[parameter] = {key: _placed(value, parameter) for key, value in own.items()}

"""A training step's memory and work before it is made: the trainer's own code, on tensors that have no storage."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

weightless = FakeTensorMode
"""Within it tensors have a shape, a type and a life, and no numbers."""


@dataclass(frozen=True)
class StepSize:
    """What forward and backward of one part of a batch take, beside the weights."""

    activations: int
    """Bytes of everything else that is there at the peak."""
    gradients: int
    """Bytes of those that are there at the peak."""
    flops: int


def without_storage(network: nn.Module) -> None:
    """Put weightless tensors in place of a network's parameters and buffers; to be called within `weightless`."""
    for module in network.modules():  # whose own `to` refuses such tensors
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def norms_as_on_a_gpu(network: nn.Module) -> None:
    """Have norms copy 16 bits to 32 under autocast, which a GPU's do and a CPU's do not: what they keep is larger."""
    for module in network.modules():
        if isinstance(module, (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)):
            module.register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))


def measure_step(
    loss: Callable[[], Tensor], parameters: Iterable[nn.Parameter], *, adds: bool = False, shards: int = 1
) -> StepSize:
    """Go there and back with weightless tensors, and watch what lives.

    Args:
        loss: makes that of one part of a batch.
        parameters: are not counted, their gradients are.
        adds: to the gradients of a part before.
        shards: among so many processes gradients are divided.
    """
    parameters = list(parameters)
    live = _Live(parameters, shards)
    hooks = [p.register_post_accumulate_grad_hook(live.count_gradient) for p in parameters if p.requires_grad]
    with live:
        for parameter in parameters:
            if adds and parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
                live.count_gradient(parameter)
        loss().backward()
    for hook in hooks:
        hook.remove()
    return StepSize(*live.peak, live.flops)


_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _Live(TorchDispatchMode):
    """Adds up the storages that operations make, from their making to their end, and the operations' work.

    torch's own counter of work watches modules besides, by hooks that keep alive what is to be computed again.
    """

    def __init__(self, known: Iterable[Tensor], shards: int) -> None:
        super().__init__()
        self._sizes = {value.untyped_storage()._cdata: 0 for value in known}
        self._shards = shards
        self._gradient_keys: set[int] = set()
        self._gradients = 0
        self._others = 0
        self.peak = (0, 0)
        """Of others, and of gradients, when their sum was largest."""
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, made)
        kind = func._overloadpacket
        if kind in flop_registry:
            self.flops += flop_registry[kind](*args, **(kwargs or {}), out_val=made)
        elif kind is _ATTENTION:
            self.flops += sdpa_flop_count(*(value.shape for value in args[:3]))
        elif kind is _ATTENTION_BACKWARD:
            self.flops += sdpa_backward_flop_count(*(value.shape for value in args[:4]))
        return made

    def _count(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._others += storage.nbytes()
            weakref.finalize(storage, self._end, key)
            if self._others + self._gradients // self._shards > sum(self.peak):
                self.peak = (self._others, self._gradients // self._shards)

    def count_gradient(self, parameter: Tensor) -> None:
        """From now on the gradient of a parameter is counted as one."""
        assert parameter.grad is not None
        key = parameter.grad.untyped_storage()._cdata
        if key not in self._gradient_keys:
            self._gradient_keys.add(key)
            self._gradients += self._sizes[key]
            self._others -= self._sizes[key]

    def _end(self, key: int) -> None:
        size = self._sizes.pop(key)
        if key in self._gradient_keys:
            self._gradient_keys.remove(key)
            self._gradients -= size
        else:
            self._others -= size

"""A GPU for machines without one: tensors that say they are on cuda:0, and compute on the CPU if all of them do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)
_MOVES = {"_to_copy", "copy_"}


class GpuTensor(Tensor):
    """Values on the CPU behind a tensor that no operation takes together with the CPU's own."""

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> GpuTensor:
        shape = {"strides": inside.stride(), "storage_offset": inside.storage_offset(), "dtype": inside.dtype}
        # Beneath it is meta: for cuda, torch asks drivers that are not here.
        made = Tensor._make_wrapper_subclass(cls, inside.size(), **shape, device="meta")
        made.inside = inside
        return made

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **settings: Any) -> Tensor:
        return torch.tensor(data, device=GPU, **{"dtype": self.dtype} | settings)

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({self.inside!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, None)


class FakeGpu(TorchDispatchMode):
    """While active, what is asked for on cuda is there; ``done`` counts the operations of each device by name."""

    def __init__(self) -> None:
        super().__init__()
        self.done: dict[str, Counter[str]] = {"cpu": Counter(), "cuda": Counter()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.done)


def _run(func: Any, args: Any, kwargs: dict[str, Any], done: dict[str, Counter[str]] | None) -> Any:
    there: dict[int, GpuTensor] = {}  # by what is inside
    strangers: list[Tensor] = []

    def entered(value: Any) -> Any:
        if isinstance(value, GpuTensor):
            there[id(value.inside)] = value
            return value.inside
        if isinstance(value, Tensor):
            if value.ndim:  # a single number may come from anywhere
                strangers.append(value)
            return value
        return type(value)(map(entered, value)) if type(value) in (list, tuple) else value

    def left(value: Any) -> Any:
        if isinstance(value, Tensor):
            return there[id(value)] if id(value) in there else GpuTensor(value)  # what was changed in place stays it
        return type(value)(map(left, value)) if type(value) in (list, tuple) else value

    name, wanted = func.overloadpacket.__name__, kwargs.get("device")
    inner = [entered(value) for value in args]
    named = {key: entered(value) for key, value in kwargs.items()}
    if there and strangers and name not in _MOVES:
        shapes = [tuple(value.shape) for value in (*there.values(), *strangers)]
        raise RuntimeError(f"{name}: tensors on cuda:0 and on the CPU, {shapes}")
    on_gpu = bool(there) if wanted is None else torch.device(wanted).type != "cpu"
    if name == "copy_":
        on_gpu = isinstance(args[0], GpuTensor)
    if wanted is not None:
        named["device"] = torch.device("cpu")
    if done is not None:
        done["cuda" if on_gpu else "cpu"][name] += 1
    result = func(*inner, **named)
    return left(result) if on_gpu else result


@contextmanager
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A machine with one GPU, as far as torch can tell."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("_lazy_init", "set_device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # so that torch.tensor(…, device="cuda") asks the mode
    try:
        with FakeGpu() as gpu:
            yield gpu
    finally:
        torch._C._set_only_lift_cpu_tensors(before)

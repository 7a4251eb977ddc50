"""One or many processes that train together: who is who, what is shared, and which part of a batch is whose.

``torchrun -m finetune …`` and ``accelerate launch -m finetune …`` start them alike, through the environment.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mv3d.errors import Mv3dError


@dataclass(frozen=True)
class MicroBatch:
    """One of ``count`` equal parts of a batch: every ``count``-th sample, beginning at number ``index``."""

    index: int = 0
    count: int = 1

    @property
    def slice(self) -> slice:
        """What picks this part's samples from a batch."""
        return slice(self.index, None, self.count)


WHOLE = MicroBatch()


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """The one process that writes files."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of all processes' values."""
        if self.count == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.count

    def any(self, wish: bool) -> bool:
        """Whether any process wishes it."""
        return self.mean(torch.tensor(float(wish), device=self.device)).item() > 0

    def wait(self) -> None:
        """Go on when all processes have come this far."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that the launcher started, each with a GPU of its own where there are GPUs (of CUDA).

    Raises:
        Mv3dError: if there are GPUs, but fewer than processes.
    """
    cuda, number = torch.cuda.is_available(), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and number >= torch.cuda.device_count():
        raise Mv3dError(f"there is no GPU for process {number + 1}: start {torch.cuda.device_count()} on this machine")
    device = torch.device("cuda", number) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device=device)
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Processes(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()


# -------------------------------------------------------------------------------------------------
# Sharded parameters (FSDP2).


def shard_parameters(network: nn.Module, processes: Processes) -> None:
    """Give every process a slice of every parameter, block by block (FSDP2, ``fully_shard``)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # Some blocks return views. Nothing here changes these in place, which is what the warning is about.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    blocks = [module for module in network.modules() if type(module).__name__.endswith("SpatioTemporal")]
    for block in blocks:
        fully_shard(block, mesh=mesh)
    for part in network.children():  # of a stage, whose container is never called itself
        fully_shard(part, mesh=mesh)


def whole(value: Tensor) -> Tensor:
    """A tensor with all processes' slices; every process must ask for it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def local(value: Tensor) -> Tensor:
    """This process's slice of a tensor, sharing its memory."""
    return value.to_local() if isinstance(value, DTensor) else value


def sliced_like(value: Tensor, like: Tensor) -> Tensor:
    """Cut a whole tensor as ``like`` is cut."""
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device)

"""The exponential moving average of what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from finetune.processes import local


class Ema:
    """Averages of the trained parameters of a network, by name; frozen ones are not kept twice."""

    def __init__(self, network: nn.Module) -> None:
        self._parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move towards the current parameters, all in one fused operation."""
        averaged = [local(value) for value in self.values.values()]
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            averaged, [local(p.detach()) for p in self._parameters.values()], 1 - decay
        )

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Put the averages into the network, in evaluation mode, for the duration of a block."""
        training = network.training
        self._swap()
        network.eval()
        try:
            yield
        finally:
            self._swap()
            network.train(training)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            current, averaged = local(parameter), local(self.values[name])
            kept = current.clone()
            current.copy_(averaged)
            averaged.copy_(kept)

"""Gradient descent for a field on a grid: smooth steps, as large everywhere as they are needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_AT_ONCE = 1 << 16  # numbers that stay in a core's cache from pass to pass


class SmoothDescent:
    """Adam with one step size for the whole grid, along the smoothed gradient (Nicolet et al. 2021, section 4).

    Adam by itself takes steps as large where colours say nothing as where they say much: plain walls become rough.
    """

    def __init__(self, values: Tensor, shape: tuple[int, int, int], rate: float, passes: int) -> None:
        self._values, self._shape, self._rate, self._passes = values, shape, rate, passes
        self._mean = torch.zeros_like(values)
        self._square = 0.0
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Move the values against their gradient, and forget this."""
        grad = self._values.grad
        assert grad is not None
        smooth = grad.reshape(self._shape)
        for _ in range(self._passes):
            smooth = _box_mean(smooth)
        grad = smooth.reshape(grad.shape)
        moved = grad != 0
        square = (grad.square().sum() / moved.sum().clamp(min=1)).item()
        self._steps += 1
        self._mean.lerp_(grad, 1 - 0.9)
        self._square += (square - self._square) * (1 - 0.95)
        scale = (1 - 0.9**self._steps) * (self._square / (1 - 0.95**self._steps)) ** 0.5
        self._values.add_(self._mean, alpha=-self._rate / max(scale, 1e-20))
        self._values.grad = None


class Adam:
    """Kingma & Ba 2015, for several tensors. ``torch.optim`` loads torch's compiler, which takes seconds."""

    def __init__(self, rates: Sequence[tuple[Tensor, float]], betas: tuple[float, float]) -> None:
        self._rates, self._betas = rates, betas
        self._means = [(torch.zeros_like(values), torch.zeros_like(values)) for values, _ in rates]
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Move the tensors against their gradients, and forget these."""
        self._steps += 1
        one, two = (1 - beta**self._steps for beta in self._betas)
        for (values, rate), state in zip(self._rates, self._means, strict=True):
            assert values.grad is not None
            parts = (tensor.reshape(-1).split(_AT_ONCE) for tensor in (values.data, values.grad, *state))
            for value, grad, mean, square in zip(*parts, strict=True):
                mean.lerp_(grad, 1 - self._betas[0])
                square.mul_(self._betas[1]).addcmul_(grad, grad, value=1 - self._betas[1])
                value.addcdiv_(mean, square.sqrt().mul_(two**-0.5).add_(1e-8), value=-rate / one)
            values.grad = None


def _box_mean(values: Tensor) -> Tensor:
    """Means over 3 x 3 x 3 points, with zeros outside, axis by axis: six times faster than ``avg_pool3d``."""
    for axis, size in enumerate(values.shape):
        total = values.clone()
        total.narrow(axis, 0, size - 1).add_(values.narrow(axis, 1, size - 1))
        total.narrow(axis, 1, size - 1).add_(values.narrow(axis, 0, size - 1))
        values = total
    return values / 27

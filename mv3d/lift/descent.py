"""Gradient descent for a field on a grid: smooth steps, as large everywhere as they are needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
        """Move the values against their gradient."""
        grad = self._values.grad
        assert grad is not None
        smooth = grad.reshape(1, 1, *self._shape)
        for _ in range(self._passes):
            smooth = F.avg_pool3d(smooth, 3, stride=1, padding=1)
        grad = smooth.reshape(grad.shape)
        moved = grad != 0
        square = (grad.square().sum() / moved.sum().clamp(min=1)).item()
        self._steps += 1
        self._mean.lerp_(grad, 1 - 0.9)
        self._square += (square - self._square) * (1 - 0.95)
        scale = (1 - 0.9**self._steps) * (self._square / (1 - 0.95**self._steps)) ** 0.5
        self._values.add_(self._mean, alpha=-self._rate / max(scale, 1e-20))

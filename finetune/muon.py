"""Muon (Jordan et al. 2024): momentum made orthogonal, so that no direction of a weight matrix is left behind.

Kernels of convolutions count as matrices of output channels by all else. An update has the root mean square of AdamW's
usual one (Liu et al. 2025, eq. 4), so AdamW's learning rates apply; biases, norms and small heads are AdamW's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import sqrt

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
_UPDATE_RMS = 0.2
_SMALLEST_SIDE = 16
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon for matrices and AdamW for the rest, one optimizer with one learning rate."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, adam_betas: tuple[float, ...], weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        trained = self.param_groups[0]["params"]
        self._matrices = [p for p in trained if is_matrix(p)]
        others = {"params": [p for p in trained if not is_matrix(p)]}  # maybe none
        beta1, beta2 = adam_betas
        self._adam = torch.optim.AdamW([others], lr=lr, betas=(beta1, beta2), weight_decay=weight_decay, fused=True)
        self._adam.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Take one step along the gradients that there are."""
        assert closure is None, "the loop computes its gradients itself"
        group = self.param_groups[0]
        for parameter in self._matrices:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
            ahead = parameter.grad.lerp(momentum, _MOMENTUM).flatten(1)
            update = orthogonalised(ahead) * (_UPDATE_RMS * sqrt(max(ahead.shape)))
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.sub_(update.view_as(parameter), alpha=group["lr"])
        self._adam.param_groups[0]["lr"] = group["lr"]
        self._adam.step()


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter is a matrix, or a kernel, large enough to have directions."""
    return parameter.ndim >= 2 and min(parameter.flatten(1).shape) >= _SMALLEST_SIDE


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix, nearly, whose singular values are all one, (M, N) to (M, N).

    Five Newton-Schulz iterations of a quintic that is steep at zero; all but the smallest singular
    values end between 0.7 and 1.2. Every iteration multiplies by a polynomial of the rows' products, so these alone are
    iterated: kernels are many times wider than high, and this a third of the work.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).float()  # small singular values drown in the products of 16 bits
    x = x / (x.norm() + 1e-7)
    a, b, c = _QUINTIC
    products = x @ x.T
    total = None
    for k in range(_ITERATIONS):
        step = b * products + c * (products @ products)
        step.diagonal().add_(a)
        total = step if total is None else step @ total
        if k + 1 < _ITERATIONS:
            products = step @ products @ step
    assert total is not None
    x = total @ x
    return (x if wide else x.T).to(matrix.dtype)

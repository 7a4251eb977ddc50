"""Why a batch taken in parts trains a little differently at a high learning rate: rounding, and what AdamW makes of it.

Run it with ``python -m benchmarks.rounding``.

The same steps of one tiny model, with every batch whole and in two parts, as two processes would take it: the gradients
differ by rounding alone. AdamW's first steps are as long where a gradient is nothing but rounding (weights before a
normalisation that cancels them) as anywhere else. Such a gradient is told by the two ways of summing, which disagree on
it by more than a tenth. Prints how far apart the losses are, step by step, with AdamW; with these gradients set to
zero; and with an epsilon that is larger than they are. At 32 px the network's lowest level is a single pixel, and two
values make a group that is normalised: rounding is a thousand times larger there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.training import prepare
from finetune.config import RunConfig
from finetune.processes import WHOLE, MicroBatch
from finetune.stages.diffusion import DiffusionTraining

STEPS = 4
RATE = 1e-3
HALVES = (MicroBatch(0, 2), MicroBatch(1, 2))


@dataclass(frozen=True)
class _Run:
    losses: list[float]
    gradient: Tensor
    """Of the first step, all weights in one row."""
    weights: Tensor
    """After the first step."""


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="side of the frames in pixels")
    size_px = parser.parse_args().size
    with tempfile.TemporaryDirectory() as folder:
        config = prepare(Path(folder), size_px, 4)
        plain = [_train(config, parts) for parts in ((WHOLE,), HALVES)]
        sure = [_train(config, parts, without_unsure=True) for parts in ((WHOLE,), HALVES)]
        damped = [_train(config, parts, epsilon=1e-4) for parts in ((WHOLE,), HALVES)]
    moved = plain[0].weights - plain[1].weights
    unsure = _unsure(plain[0].gradient, plain[1].gradient)
    found = {
        "losses": plain[0].losses,
        "apart": _apart(*plain),
        "apart_without_unsure": _apart(*sure),
        "apart_with_epsilon_1e-4": _apart(*damped),
        "gradients_apart": ((plain[0].gradient - plain[1].gradient).norm() / plain[0].gradient.norm()).item(),
        "weights_apart_after_one_step": moved.abs().max().item(),
        "share_of_weights_that_are_unsure": unsure.float().mean().item(),
        "their_share_of_the_squared_difference": (moved[unsure].square().sum() / moved.square().sum()).item(),
    }
    print(json.dumps(found, indent=1))


def _train(
    config: RunConfig, parts: tuple[MicroBatch, ...], *, without_unsure: bool = False, epsilon: float = 1e-8
) -> _Run:
    stage = DiffusionTraining(config)
    trained: list[Tensor] = [*stage.network.train().parameters()]
    optimizer = torch.optim.AdamW(trained, RATE, betas=(0.9, 0.99), eps=epsilon, weight_decay=0.0)

    def gradients(step: int, parts: tuple[MicroBatch, ...]) -> tuple[float, list[Tensor]]:
        stage.network.zero_grad()
        total = 0.0
        for part in parts:
            loss, _ = stage.loss(step, torch.Generator().manual_seed(step), part)
            (loss / len(parts)).backward()
            total += loss.item() / len(parts)
        return total, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trained]

    losses, first = [], []
    for step in range(STEPS):
        other = gradients(step, HALVES if parts == (WHOLE,) else (WHOLE,))[1] if without_unsure else []
        loss, own = gradients(step, parts)
        losses.append(loss)
        for p, gradient in zip(trained, own, strict=True):
            p.grad = gradient.clone()
        for p, gradient in zip(trained, other, strict=False):
            assert p.grad is not None
            p.grad[_unsure(p.grad, gradient)] = 0
        optimizer.step()
        first = first or [_flat(own), _flat(trained)]
    stage.close()
    return _Run(losses, *first)


def _unsure(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs() > 0.1 * torch.minimum(a.abs(), b.abs())


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten().double() for value in tensors])


def _apart(a: _Run, b: _Run) -> list[float]:
    return [abs(x - y) for x, y in zip(a.losses, b.losses, strict=True)]


if __name__ == "__main__":
    main()

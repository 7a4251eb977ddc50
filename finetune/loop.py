"""One training loop for every stage: AdamW, EMA, JSON-lines log, atomic checkpoints, exact resume.

Nothing is drawn from a global random state: batch and noise of step k are functions of (seed, k). So a run that is
killed and started again makes, bit for bit, the steps an uninterrupted run would have made.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from finetune.config import LoopConfig
from finetune.log import TrainingLog
from mv3d.errors import Mv3dError
from mv3d.files import whole_folder
from mv3d.model.checkpoints import load_strict

Network = TypeVar("Network", bound=nn.Module)


class Stage(Protocol):
    """What the loop needs to know of a stage."""

    network: nn.Module
    """Everything that is trained."""

    def start_from(self, model: Path) -> None:
        """Take the initial weights from a model folder."""
        ...

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch, and figures worth logging."""
        ...

    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """Score ``network`` (the EMA of `network`) on the validation split and write a picture to ``sheet``."""
        ...


@dataclass
class TrainingState:
    """What a checkpoint holds besides its three files of tensors."""

    step: int = 0
    seconds: float = 0.0


def train(
    stage: Stage, loop: LoopConfig, run: Path, log: TrainingLog, *, seed: int, deadline: float = math.inf
) -> bool:
    """Train until ``loop.steps`` are done or ``time.monotonic()`` passes ``deadline``; returns whether all are done.

    Raises:
        Mv3dError: when the loss is not finite; the last checkpoint stays as it was.
    """
    # ---- State: new, or where the last leg stopped.
    network = stage.network
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=loop.learning_rate, betas=(0.9, 0.99), weight_decay=loop.weight_decay
    )
    ema = copy.deepcopy(network).eval().requires_grad_(False)
    state = load_checkpoint(run, network, ema, optimizer) or TrainingState()

    # ---- Steps.
    bar = tqdm(total=loop.steps, initial=state.step, desc=run.name, unit="step", smoothing=0.05)
    started = time.monotonic() - state.seconds
    window: list[dict[str, float]] = []
    with _stop_requests() as stop_requested:
        while state.step < loop.steps and time.monotonic() < deadline and not stop_requested():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(loop, state.step)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + state.step)
            with torch.autocast("cpu", torch.bfloat16, enabled=loop.bfloat16):
                loss, figures = stage.loss(state.step, generator)
            if not torch.isfinite(loss):
                raise Mv3dError(
                    f"{run}: the loss is {loss.item()} at step {state.step}; lower the learning rate and run again"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(network.parameters(), loop.max_grad_norm)
            optimizer.step()
            state.step += 1
            update_ema(ema, network, min(loop.ema_decay, (1 + state.step) / (10 + state.step)))
            bar.update()

            # ---- Side doors: log, checkpoint, validation.
            state.seconds = time.monotonic() - started
            window.append({"loss": loss.item(), "grad_norm": norm.item(), **figures})
            if state.step % loop.log_every == 0:
                mean = {key: sum(line[key] for line in window) / len(window) for key in window[0]}
                bar.set_postfix_str(f"loss {mean['loss']:.4f}")
                samples = state.step * loop.batch_size
                log.write(
                    step=state.step,
                    samples=samples,
                    seconds=round(state.seconds),
                    lr=learning_rate(loop, state.step),
                    **mean,
                )
                window = []
            if state.step % loop.validate_every == 0:
                scores = stage.validate(ema, run / "sheets" / f"{state.step:07d}.jpg")
                log.write(step=state.step, **{f"val_{key}": value for key, value in scores.items()})
            if state.step % loop.save_every == 0:
                save_checkpoint(run, network, ema, optimizer, state)
    bar.close()
    if latest_checkpoint(run) != run / _checkpoint_name(state.step):
        save_checkpoint(run, network, ema, optimizer, state)
    return state.step >= loop.steps


def learning_rate(loop: LoopConfig, step: int) -> float:
    """Linear warm-up, a plateau, then 1/sqrt(step)."""
    warmup = min(1.0, (step + 1) / max(1, loop.warmup_steps))
    return loop.learning_rate * warmup * min(1.0, math.sqrt(loop.decay_after_steps / (step + 1)))


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged parameters towards the current ones; buffers are copied."""
    averaged, current = list(ema.parameters()), list(network.parameters())
    for target, source in zip(averaged, current, strict=True):
        target.lerp_(source, 1 - decay)
    for target, source in zip(ema.buffers(), network.buffers(), strict=True):
        target.copy_(source)


# -------------------------------------------------------------------------------------------------
# Checkpoints: run/step-0000200/{network,ema,optimizer}.safetensors and state.json. A folder that has the name is whole.


def _checkpoint_name(step: int) -> str:
    return f"step-{step:07d}"


def latest_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    return max(run.glob("step-*"), default=None)


def save_checkpoint(
    run: Path, network: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Write a checkpoint, then delete the older ones."""
    target = run / _checkpoint_name(state.step)
    with whole_folder(target, overwrite=True) as partial:
        save_file(_tensors(network), partial / "network.safetensors")
        save_file(_tensors(ema), partial / "ema.safetensors")
        save_file(_optimizer_tensors(optimizer), partial / "optimizer.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": state.step, "seconds": state.seconds}))
    for old in run.glob("step-*"):
        if old != target:
            shutil.rmtree(old)


def load_checkpoint(
    run: Path, network: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainingState | None:
    """Bring everything to the newest checkpoint; None if the run has none.

    Raises:
        Mv3dError: when the checkpoint is of another shape than the config makes (the keys are listed).
    """
    folder = latest_checkpoint(run)
    if folder is None:
        return None
    load_strict(network, load_file(folder / "network.safetensors"), str(folder))
    load_strict(ema, load_file(folder / "ema.safetensors"), str(folder))
    moments = load_file(folder / "optimizer.safetensors")
    parameters = optimizer.param_groups[0]["params"]
    for k, parameter in enumerate(parameters):
        if f"{k}.step" in moments:
            optimizer.state[parameter] = {key: moments[f"{k}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    return TrainingState(**json.loads((folder / "state.json").read_text()))


def load_ema(run: Path, network: Network) -> Network:
    """The averaged weights of a run's newest checkpoint, frozen, in evaluation mode."""
    folder = latest_checkpoint(run)
    if folder is None:
        raise Mv3dError(f"{run} holds no checkpoint yet; train this stage first")
    load_strict(network, load_file(folder / "ema.safetensors"), str(folder))
    return network.eval().requires_grad_(False)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().contiguous() for key, value in module.state_dict().items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    parameters = optimizer.param_groups[0]["params"]
    return {f"{k}.{key}": value for k, p in enumerate(parameters) for key, value in optimizer.state.get(p, {}).items()}


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a wish to stop after the current step; a second signal acts as usual."""
    wished = []

    def wish(signum: int, _frame: object) -> None:
        wished.append(signum)
        signal.signal(signum, previous[signal.Signals(signum)])

    previous = {signum: signal.signal(signum, wish) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(wished)
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)

"""One training loop for every stage: optimizer, EMA, JSON-lines log, atomic checkpoints, exact resume.

Nothing is drawn from a global random state: batch and noise of step k are functions of (seed, k). So a run that is
killed and started again makes, bit for bit, the steps an uninterrupted run would have made, and a batch may be divided
among processes or taken part after part without changing what is drawn.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from finetune.checkpoint import (
    TrainingState,
    latest_checkpoint,
    load_checkpoint,
    save_best,
    save_checkpoint,
)
from finetune.ema import Ema
from finetune.log import TrainingLog
from finetune.loop_config import LoopConfig
from finetune.muon import Muon
from finetune.processes import WHOLE, MicroBatch, Processes, shard_parameters, whole
from finetune.recompute import recompute_layers
from mv3d.errors import Mv3dError
from mv3d.model.unet import OrbitUNet


class Stage(Protocol):
    """What the loop needs to know of a stage."""

    network: nn.Module
    """Everything that is trained; parameters that do not require gradients stay as they are."""
    divisible: bool
    """Whether `loss` can be asked for parts of a batch."""
    images_per_sample: int
    """For the throughput."""

    def loss(self, step: int, generator: torch.Generator, part: MicroBatch = WHOLE) -> tuple[Tensor, dict[str, float]]:
        """The mean loss of one part of a batch, and metrics for the log."""
        ...

    def object_ids(self, step: int) -> list[str]:
        """Which objects the whole batch shows."""
        ...

    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """Score ``network`` (holding the averages) on the validation split and write a picture to ``sheet``.

        By a score that is called loss, where there is one, the best checkpoint is chosen.
        """
        ...


def train(
    stage: Stage,
    loop: LoopConfig,
    run: Path,
    log: TrainingLog,
    *,
    seed: int,
    deadline: float = math.inf,
    processes: Processes | None = None,
    begin: Path | None = None,
    score_first: bool = False,
) -> bool:
    """Train until ``loop.steps`` are done or ``time.monotonic()`` passes ``deadline``; returns whether all are done.

    Args:
        stage: what is trained.
        loop: how.
        run: the stage's folder.
        log: of its figures.
        seed: of all that is drawn.
        deadline: of this process's clock.
        processes: that train together.
        begin: a checkpoint of another run, to go on from where this run has none.
        score_first: validate before the first step too.

    Raises:
        Mv3dError: when loss or gradient is not finite (the batch's objects are named; the last checkpoint stays as it
            was), or when data cannot be read (all steps so far are saved first).
        KeyboardInterrupt: after SIGINT or SIGTERM, once the current step is done and saved.
    """
    processes = processes or Processes()
    parts = _parts(stage, loop, processes)

    # ---- State: new, or where it was stopped.
    network = stage.network
    if loop.checkpointing:
        recompute_layers(network)
    if loop.shard and processes.count > 1:
        shard_parameters(network, processes)
    optimizer = make_optimizer(network, loop)
    ema = Ema(network)
    state = load_checkpoint(run, network, ema, optimizer, processes, begin) or TrainingState()
    saved = state.step  # counted by every process, which looking at the files would not be
    objective: nn.Module = _Objective(stage, seed, loop)
    if loop.compile:
        for module in network.modules():
            if isinstance(module, OrbitUNet):
                module.compile()
    if processes.count > 1 and not loop.shard:
        objective = DistributedDataParallel(objective)

    validates = processes.is_main or loop.shard
    if score_first and state.step == 0 and validates:
        state.best_loss = _validate(stage, ema, run, log, 0)

    # ---- Steps.
    started = time.monotonic() - state.seconds
    window: list[dict[str, float]] = []
    window_started = time.monotonic()
    with _stop_requests() as stop_requested, _bar(loop.steps, state.step, run.name, processes) as bar:
        while state.step < loop.steps and not processes.any(time.monotonic() > deadline or stop_requested()):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(loop, state.step)
            try:
                loss, metrics = _backward(objective, state.step, parts, processes)
            except Mv3dError:
                if state.step != saved:
                    save_checkpoint(run, network, ema, optimizer, state, processes)
                raise
            trained = [p for p in network.parameters() if p.requires_grad]
            norm = whole(nn.utils.clip_grad_norm_(trained, loop.max_grad_norm))
            found = {"loss": loss, "gradient": norm}
            found = dict(zip(found, torch.stack([loss, norm.to(loss)]).tolist(), strict=True))  # waits for a GPU once
            for name, value in found.items():
                if not math.isfinite(value):
                    raise Mv3dError(_not_finite(name, value, stage, state.step, run))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.step += 1
            ema.update(min(loop.ema_decay, (1 + state.step) / (10 + state.step)))
            bar.update()

            # ---- Side doors: log, checkpoint, validation.
            state.seconds = time.monotonic() - started
            window.append({"loss": found["loss"], "grad_norm": found["gradient"], **metrics})
            if state.step % loop.log_every == 0:
                mean = {key: sum(line[key] for line in window) / len(window) for key in window[0]}
                images = len(window) * loop.batch_size * stage.images_per_sample
                rate = images / max(time.monotonic() - window_started, 1e-9)
                bar.set_postfix_str(f"loss {mean['loss']:.4f}, {rate:.1f} images/s")
                log.write(
                    step=state.step,
                    samples=state.step * loop.batch_size,
                    seconds=round(state.seconds),
                    lr=learning_rate(loop, state.step),
                    images_per_s=round(rate, 2),
                    **mean,
                )
                window, window_started = [], time.monotonic()
            if state.step % loop.validate_every == 0 and validates:
                held_out = _validate(stage, ema, run, log, state.step)
                if held_out is not None and (state.best_loss is None or held_out < state.best_loss):
                    state.best_loss = held_out
                    save_best(run, network, ema, optimizer, state, processes)
            if state.step % loop.save_every == 0:
                save_checkpoint(run, network, ema, optimizer, state, processes)
                saved = state.step
    if state.step != saved or state.step == 0:
        save_checkpoint(run, network, ema, optimizer, state, processes)
    if stop_requested() and state.step < loop.steps:
        raise KeyboardInterrupt
    return state.step >= loop.steps


def learning_rate(loop: LoopConfig, step: int) -> float:
    """Linear warm-up, a plateau, then 1/sqrt(step), and a straight line to zero at the end."""
    warmup = min(1.0, (step + 1) / max(1, loop.warmup_steps))
    decay = min(1.0, math.sqrt(loop.decay_after_steps / (step + 1)))
    cooldown = min(1.0, (loop.steps - step) / (loop.cooldown_steps + 1))
    return loop.learning_rate * warmup * decay * cooldown


def make_optimizer(network: nn.Module, loop: LoopConfig) -> torch.optim.Optimizer:
    """Make the config's optimizer of what is trained; AdamW in 8 bits is that of Dettmers et al. 2022.

    Raises:
        Mv3dError: if 8 bits are wanted and bitsandbytes is not there, or Muon of slices of matrices.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    given: dict[str, Any] = {"lr": loop.learning_rate, "betas": loop.adam_betas, "weight_decay": loop.weight_decay}
    if loop.optimizer == "muon":
        if loop.shard:
            raise Mv3dError("optimizer muon wants whole matrices, and shard leaves each process a slice; use adamw")
        return Muon(trained, loop.learning_rate, loop.adam_betas, loop.weight_decay)
    if loop.optimizer == "adamw":
        return torch.optim.AdamW(trained, **given, fused=True)  # one pass over each weight instead of a dozen
    try:
        import bitsandbytes  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise Mv3dError("optimizer adamw_8bit needs bitsandbytes: pip install -e '.[adam8bit]'") from error
    return bitsandbytes.optim.AdamW8bit(trained, **given)


class _Objective(nn.Module):
    """A stage's loss as a module, which is what DDP synchronises the gradients of."""

    def __init__(self, stage: Stage, seed: int, loop: LoopConfig) -> None:
        super().__init__()
        self.network = stage.network
        self._loss = stage.loss
        self._seed = seed
        self._bfloat16 = loop.bfloat16

    def forward(self, step: int, part: MicroBatch) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        device = next(self.network.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self._bfloat16):
            return self._loss(step, generator, part)


def _parts(stage: Stage, loop: LoopConfig, processes: Processes) -> list[MicroBatch]:
    """The parts of every batch that are this process's."""
    count = processes.count * loop.accumulate
    if count > 1 and not stage.divisible:
        raise Mv3dError("this stage trains whole batches in one process: start it without torchrun, accumulate: 1")
    loop.part_size(processes.count)
    return [MicroBatch(processes.rank * loop.accumulate + k, count) for k in range(loop.accumulate)]


def _backward(
    objective: nn.Module, step: int, parts: list[MicroBatch], processes: Processes
) -> tuple[Tensor, dict[str, float]]:
    """Gradients of a whole batch, part after part; returns its loss and its first part's metrics."""
    total, metrics = torch.zeros((), device=processes.device), {}
    for k, part in enumerate(parts):
        more = k < len(parts) - 1
        waiting = objective.no_sync() if more and isinstance(objective, DistributedDataParallel) else nullcontext()
        with waiting:  # gradients are exchanged behind the last part
            loss, found = objective(step, part)
            (loss if len(parts) == 1 else loss / len(parts)).backward()
        total = total + loss.detach().float().to(total.device) / len(parts)
        metrics = metrics or found
    return processes.mean(total), metrics


def _validate(stage: Stage, ema: Ema, run: Path, log: TrainingLog, step: int) -> float | None:
    """Score the averages of a step; returns their held-out loss, where the stage has one."""
    sheet = run / "sheets" / f"{step:07d}.jpg"
    with ema.applied(stage.network):
        scores = stage.validate(stage.network, sheet)
    if scores:
        log.write(step=step, **{f"val_{key}": value for key, value in scores.items()})
    if scores or sheet.is_file():  # pictures of one's own are drawn, and nothing is known to score them by
        log.show(step=step, sheet=sheet)
    return scores.get("loss")


def _not_finite(name: str, value: float, stage: Stage, step: int, run: Path) -> str:
    kept = latest_checkpoint(run)
    return (
        f"{run}: the {name} is {value} at step {step}, on {', '.join(stage.object_ids(step))}; lower the learning rate"
        f" or leave these objects out, and run again: it goes on from {kept.name if kept else 'the start'}"
    )


def _bar(steps: int, done: int, name: str, processes: Processes) -> tqdm:
    return tqdm(total=steps, initial=done, desc=name, unit="step", smoothing=0.05, disable=not processes.is_main)


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

"""How a stage is optimised: what the training loop is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from finetune.limits import BatchSize, Count, Period, Positive, Share, Steps, Weight, Within
from mv3d.errors import Mv3dError

OptimizerName = Literal["adamw", "adamw_8bit", "muon"]


@dataclass(frozen=True)
class LoopConfig:
    """Optimisation, the same for every stage. Progress is counted in steps of ``batch_size`` samples."""

    steps: Steps
    batch_size: BatchSize
    learning_rate: Positive
    warmup_steps: Steps = 100
    decay_after_steps: Period = 1_000_000
    """From here on the learning rate falls with 1/sqrt(step) (EDM2, Karras et al. 2024, eq. 67)."""
    cooldown_steps: Steps = 0
    """Over the last so many steps it falls in a straight line to zero besides."""
    weight_decay: Weight = 0.0
    max_grad_norm: Positive = 1.0
    bfloat16: bool = False
    """Multiply in bfloat16, keep weights and sums in float32: faster where the processor has the instructions."""
    optimizer: OptimizerName = "adamw"
    """adamw_8bit keeps AdamW's moments in 8 bits (needs bitsandbytes and an NVIDIA GPU); muon gets further in as many
    steps, at AdamW's learning rates."""
    adam_betas: tuple[Annotated[float, Within(0, 0.999999)], ...] = (0.9, 0.99)
    accumulate: Count = 1
    """Take a batch in so many parts, one after the other, for want of memory."""
    checkpointing: bool = False
    """Keep few activations and compute the others twice, for want of memory."""
    shard: bool = False
    """Of several processes each keeps a slice of weights, gradients and moments (FSDP2), not all of them (DDP)."""
    compile: bool = False
    ema_decay: Share = 0.999
    log_every: Period = 20
    save_every: Period = 200
    validate_every: Period = 500

    def __post_init__(self) -> None:
        if len(self.adam_betas) != 2:
            raise Mv3dError(f"adam_betas {list(self.adam_betas)}: give two, of gradients and of their squares")
        self.part_size(1)

    def part_size(self, processes: int) -> int:
        """How many samples of a batch are taken at once by each of so many processes.

        Raises:
            Mv3dError: if a batch cannot be divided so.
        """
        parts = processes * self.accumulate
        if self.batch_size % parts:
            raise Mv3dError(
                f"batch_size {self.batch_size} is no multiple of {parts} = {processes} processes x {self.accumulate} "
                "accumulated parts; change one of them"
            )
        return self.batch_size // parts

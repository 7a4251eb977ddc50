"""What it is to adapt a model that there is to new orbits: SVD to SVD-MV or SV3D, or any model by a LoRA."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from finetune.limits import (
    BatchSize,
    Count,
    CountOrNone,
    LayersPerBlock,
    LogSigma,
    NumViews,
    Period,
    Positive,
    ResolutionPx,
    SamplingSteps,
    Seed,
    Share,
    Spread,
    Steps,
    UNetWidth,
    Weight,
    Within,
    check_heads,
    check_sigmas,
)
from mv3d.errors import Mv3dError
from mv3d.model.lora import LoraTargets

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


@dataclass(frozen=True)
class Conditions:
    """What the network is told, where that is to differ from its base (prior columns are kept, new ones are zero)."""

    cond_aug_only: bool = False
    """Cut SVD's three ids to the noise added to the picture, as SV3D has it; frames and motion go into the bias."""
    poses: bool = True
    """Polar angle and azimuth of every frame (SV3D_p); without them the network learns one kind of orbit (SV3D_u)."""
    input_last: bool = False
    """The input picture's view is the last frame (SV3D), not the first (SVD)."""


@dataclass(frozen=True)
class Noise:
    """EDM's noise, one level per clip: ln sigma is drawn from N(p_mean, p_std^2) (Karras et al. 2022, section 5)."""

    p_mean: LogSigma = 0.7
    p_std: Spread = 1.6
    condition_dropout: Share = 0.1
    """How often a clip's picture is hidden, for classifier-free guidance."""
    cond_noise_mean: LogSigma | None = None
    """Mean of ln of the noise added to the input picture (SVD, appendix D); None: the base's own fixed, small value."""
    cond_noise_std: Spread = 0.0


@dataclass(frozen=True)
class Lora:
    """Train adapters instead of the weights (Hu et al. 2021)."""

    rank: Annotated[int, Within(1, 4096)] = 16
    alpha: Positive = 16.0
    targets: LoraTargets = "temporal_attention"


@dataclass(frozen=True)
class NewUNet:
    """A UNet of random weights in place of the base's, of which autoencoder and image encoder are kept.

    It has no coarse views, and poses if `Conditions` say so; it is sampled without guidance.
    """

    channels: tuple[UNetWidth, ...] = (64, 128)
    heads: tuple[Count, ...] = (2, 4)
    layers_per_block: LayersPerBlock = 1
    sampling_steps: SamplingSteps = 25
    sigma_min: Positive = 0.02
    sigma_max: Positive = 80.0

    def __post_init__(self) -> None:
        check_heads(self.channels, self.heads, "network")
        check_sigmas(self.sigma_min, self.sigma_max, "network")


@dataclass(frozen=True)
class Distillation:
    """Train the base to take few sampling steps without guidance instead of many with: see `finetune.consistency`.

    Noise levels are those of the teacher's steps then, and no picture is hidden: of `Noise`, only what is added to the
    picture counts.
    """

    num_steps: SamplingSteps = 4
    """What the result takes unless it is asked otherwise; it can take any number up to the teacher's."""
    teacher_steps: SamplingSteps = 25
    """Steps of Euler's method whose outcome is learnt."""


@dataclass(frozen=True)
class Cache:
    """Latents and image embeddings, computed once per orbit and kept in WebDataset shards."""

    variants: Count = 1
    """How often an orbit is encoded: first as rendered, on white, then changed as follows."""
    backgrounds: bool = False
    """Random plain colours behind the object, as SV3D has it (for autoencoders without alpha)."""
    recolour: bool = False
    """Other exposures and permuted colour channels."""
    flip: bool = False
    """Every second variant is mirrored left to right, and the azimuth with it."""
    samples_per_shard: Count = 64
    buffer_shards: Count = 4
    """So many shards are held and mixed at a time; each process reads all of them."""


@dataclass(frozen=True)
class Recipe:
    """One adaptation: of which model, to which orbits, how."""

    base: str
    """What ``mv3d orbit --model`` takes: mini, a folder, a file, or owner/name on the hub."""
    data: tuple[Path, ...]
    """Folders of orbit folders with their manifest.jsonl, as ``python -m render orbits`` writes them; or files in such
    folders that name some of the objects, as ``curate`` writes them (``data/orbits/broad.txt``)."""
    run: Path
    """Cache, checkpoints, logs and the result; a leg of any length continues here."""
    model_name: str
    loop: LoopConfig
    noise: Noise = field(default_factory=Noise)
    conditions: Conditions = field(default_factory=Conditions)
    lora: Lora | None = None
    distillation: Distillation | None = None
    network: NewUNet | None = None
    """Begin with random weights of these sizes."""
    cache: Cache = field(default_factory=Cache)
    num_views: NumViews = 21
    """Frames of a clip; an orbit of more views is thinned evenly, beginning at any of them."""
    turns: bool = True
    """The data are orbits, which close; false for clips of a moving camera, whose last frame no first one follows."""
    category: str | None = None
    """Only objects that the manifest puts into this category."""
    resolution_px: ResolutionPx | None = None
    """The base's own, unless given."""
    seed: Seed = 0
    validation_split: Literal["train", "val", "test"] = "val"
    validation_objects: CountOrNone = 8
    wandb_project: str | None = None

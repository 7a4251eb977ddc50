"""What the diffusion stage is: which network, what it is told, and by what it is trained, alike for all sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from finetune.base_storage import BaseStorage
from finetune.limits import (
    Count,
    EmbeddingWidth,
    LayersPerBlock,
    LogSigma,
    NumViews,
    Positive,
    SamplingSteps,
    Share,
    Spread,
    UNetWidth,
    Weight,
    Within,
    check_heads,
    check_sigmas,
)
from finetune.loop_config import LoopConfig
from mv3d.errors import Mv3dError
from mv3d.model.lora import LoraTargets


@dataclass(frozen=True)
class Conditioning:
    """What the network is told, where that is to differ from its base (prior columns are kept, new ones are zero)."""

    cond_aug_only: bool = False
    """Cut SVD's three ids to the noise added to the picture, as SV3D has it; frames and motion go into the bias."""
    poses: bool = True
    """Polar angle and azimuth of every frame (SV3D_p); without them the network learns one kind of orbit (SV3D_u)."""
    input_last: bool = False
    """The input picture's view is the last frame (SV3D), not the first (SVD)."""


@dataclass(frozen=True)
class Lora:
    """Train adapters instead of the weights (Hu et al. 2021)."""

    rank: Annotated[int, Within(1, 4096)] = 16
    alpha: Positive = 16.0
    targets: LoraTargets = "temporal_attention"
    base_storage: BaseStorage = "float32"
    """How the UNet's frozen products are kept: bfloat16 takes half the memory, float8 a quarter (and rounds to 3 bits
    of mantissa), cpu none on the device (bfloat16 in main memory, brought there for each product). All but float32 want
    ``loop.bfloat16``, which multiplies in it anyway."""


@dataclass(frozen=True)
class Distillation:
    """Train the base to take few sampling steps without guidance instead of many with: see `finetune.consistency`.

    Noise levels are those of the teacher's steps then, and no picture is hidden: of the noise, only what is added to
    the picture counts.
    """

    num_steps: SamplingSteps = 4
    """What the result takes unless it is asked otherwise; it can take any number up to the teacher's."""
    teacher_steps: SamplingSteps = 25
    """Steps of Euler's method whose outcome is learnt."""


@dataclass(frozen=True)
class Cache:
    """Latents and image embeddings of a base, computed once per orbit and kept in WebDataset shards."""

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
class DiffusionStage:
    """The video diffusion model on cached latents (EDM, Karras et al. 2022; SVD and SV3D for the conditions).

    A base of Wan is trained by flow matching, `finetune.stages.flow`, which a few of these are not for.
    """

    loop: LoopConfig

    # A UNet of random weights: its sizes, and how it is sampled. One of a base has the base's.
    channels: tuple[UNetWidth, ...] = (64, 128, 192)
    heads: tuple[Count, ...] = (2, 4, 6)
    layers_per_block: LayersPerBlock = 1
    cross_attention_dim: Annotated[int, Within(1, 8192)] = 128
    """Beside a base's image encoder, as wide as that one gives, and ids and poses as in the base."""
    id_embed_dim: EmbeddingWidth = 64
    pose_embed_dim: EmbeddingWidth = 128
    cond_aug: Weight = 1e-5
    sampling_steps: SamplingSteps = 10
    sigma_min: Positive = 0.02
    sigma_max: Positive = 80.0
    guidance_high: Weight = 1.0

    # One noise level per clip: ln sigma is drawn from N(p_mean, p_std^2) (EDM, section 5).
    p_mean: LogSigma = 0.7
    """Mean of ln sigma (SVD, appendix D.2); of Wan, of ln of noise to signal, which is the same."""
    p_std: Spread = 1.6
    condition_dropout: Share = 0.1
    """How often a clip's picture is hidden, or Wan's words, for classifier-free guidance."""
    cond_noise_mean: LogSigma | None = None
    """Mean of ln of the noise added to the input picture (SVD, appendix D); None: the base's own fixed, small value."""
    cond_noise_std: Spread = 0.0

    # Losses on decoded frames, beside EDM's.
    lpips_weight: Weight = 0.0
    """Of the decoded estimate's LPIPS beside EDM's loss: few steps of sampling then give sharp frames."""
    pixel_weight: Weight = 0.0
    """Of the decoded estimate's mean squared error, colours on white and alpha in [0, 1]: what PSNR and IoU measure."""
    discriminator_weight: Weight = 0.0
    """Of the generator loss against a discriminator (`finetune.discriminator`), trained along: how long its gradient is
    beside that of LPIPS and pixels together."""
    lpips_frames: NumViews = 2
    """Frames of each clip that are decoded for these three, at the size the model gives."""
    train_decoder: bool = False
    """Train the autoencoder's decoder along, by these three: it learns to show what the UNet is unsure of."""
    inputs_per_orbit: NumViews = 1
    """How many views of each orbit serve as the input picture; their coarse latents are cached."""

    # What is made of a base.
    conditions: Conditioning = field(default_factory=Conditioning)
    lora: Lora | None = None
    distillation: Distillation | None = None
    cache: Cache = field(default_factory=Cache)

    def __post_init__(self) -> None:
        check_heads(self.channels, self.heads, "diffusion")
        check_sigmas(self.sigma_min, self.sigma_max, "diffusion")
        storage = "float32" if self.lora is None else self.lora.base_storage
        if storage != "float32" and not self.loop.bfloat16:
            raise Mv3dError(
                f"diffusion.lora.base_storage {storage} wants diffusion.loop.bfloat16: true; set it, or float32"
            )
        if storage != "float32" and self.loop.shard:
            raise Mv3dError(
                f"diffusion.lora.base_storage {storage}: shard wants one type of numbers; leave one of them out"
            )
        compared = self.lpips_weight or self.pixel_weight
        if self.train_decoder and not compared:
            raise Mv3dError("diffusion.train_decoder needs a lpips_weight or a pixel_weight to train it by")
        if self.discriminator_weight and not compared:
            raise Mv3dError("diffusion.discriminator_weight is a share, of a lpips_weight or a pixel_weight; give one")

"""What a training run is: a model made anew, stage by stage, or a base that is adapted; one config for all sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from finetune.diffusion_config import DiffusionStage
from finetune.limits import Count, CountOrNone, NumViews, ResolutionPx, Seed, SmallWidth, Weight, Within
from finetune.loop_config import LoopConfig
from mv3d.errors import Mv3dError
from mv3d.model.coarse_config import CoarseConfig

StageName = Literal["autoencoder", "coarse", "diffusion"]

_RESOLUTION_PX = 128
_OF_A_NEW_UNET = (
    "channels",
    "heads",
    "layers_per_block",
    "cond_aug",
    "sampling_steps",
    "sigma_min",
    "sigma_max",
    "guidance_high",
)
_OF_DECODED_FRAMES = ("lpips_weight", "pixel_weight", "inputs_per_orbit")
_OF_A_BASE = ("lora", "distillation", "cache", "cond_noise_mean")


@dataclass(frozen=True)
class AutoencoderStage:
    """The mini model's autoencoder: RGB on white and alpha, 8 times down (Rombach et al. 2022, no discriminator)."""

    loop: LoopConfig
    channels: tuple[SmallWidth, ...] = (24, 48, 96, 128)
    latent_channels: Annotated[int, Within(4, 256)] = 8
    upscale_factor: Annotated[int, Within(1, 8)] = 1
    """Decode to frames so many times larger than ``resolution_px``, a power of two."""
    decoder_sees_views: bool = False
    """Decode beside the coarse views at full size; the diffusion stage's ``train_decoder`` teaches the decoder to."""
    decoder_only: bool = False
    """Leave the encoder as ``start_from`` has it, and with it what a diffusion model learnt of its latents."""
    lpips_weight: Weight = 0.5
    kl_weight: Weight = 1e-6

    def __post_init__(self) -> None:
        if len(self.channels) != 4:
            raise Mv3dError(f"autoencoder.channels: {len(self.channels)} levels; give 4, for latents 8 times smaller")
        if self.upscale_factor < 1 or self.upscale_factor.bit_count() != 1:
            raise Mv3dError(f"autoencoder.upscale_factor {self.upscale_factor} is no power of two")


@dataclass(frozen=True)
class CoarseStage:
    """The coarse network, against the space that objects fill."""

    loop: LoopConfig
    data: tuple[Path, ...] = ()
    """Folders of orbit folders with ``--passes depth occupancy``: the run's ``data`` unless given."""
    network: CoarseConfig = field(default_factory=CoarseConfig)
    pretrained_backbone: bool = True
    frozen_stages: Annotated[int, Within(0, 7)] = 2
    """Of the backbone, the first ones, which are the dearest, stay as they were."""
    rays_per_picture: Count = 1024
    """At most so many are compared with the truth."""
    single_picture_weight: Weight = 0.5
    """Of the overlap of what each picture's rays say by themselves, without the grid and the other pictures."""
    geometry_weight: Weight = 0.5
    colour_weight: Weight = 2.0
    colour_points: Count = 2048


@dataclass(frozen=True)
class RunConfig:
    """One model: where its data is, where it grows, what it begins with, and its stages in the order of training."""

    data: tuple[Path, ...]
    """Folders of orbit folders with their manifest.jsonl, as ``python -m render orbits`` writes them; or files in such
    folders that name some of the objects, as ``curate`` writes them (``data/orbits/broad.txt``)."""
    run: Path
    """Caches, checkpoints, logs and the model; a run that was stopped continues here."""
    diffusion: DiffusionStage
    base: str | None = None
    """What ``mv3d orbit --model`` takes: mini, a folder, a file, or owner/name on the hub. All but its UNet, or
    Wan's transformer, stay as they are; without one, autoencoder and coarse network are the run's own stages."""
    init: Literal["random", "base"] = "random"
    """What the UNet begins with: weights of the base, which is understood where there is one, or random ones."""
    autoencoder: AutoencoderStage | None = None
    coarse: CoarseStage | None = None
    num_views: NumViews | None = None
    """Frames of a clip of a base; an orbit of more views is thinned evenly, beginning at any of them. A new model's
    clips are whole orbits."""
    turns: bool = True
    """The data are orbits, which close; false for clips of a moving camera, whose last frame no first one follows."""
    category: str | None = None
    """Only objects that the manifest puts into this category."""
    resolution_px: ResolutionPx | None = None
    """Of the frames that are encoded: the base's own, or 128, unless given."""
    seed: Seed = 0
    start_from: Path | None = None
    """A model folder whose weights the stages of a new model begin with instead of random ones."""
    validation_split: Literal["train", "val", "test"] = "val"
    validation_objects: CountOrNone = 8
    pictures: tuple[Path, ...] = ()
    """Of one's own, photographs or cut-outs, seen from 10 degrees above: the diffusion stage draws their orbits below
    those of held-out objects."""
    model_name: str = "mini"
    licence: str = "CC-BY-4.0"
    """Of a new model; what is made of a base has the base's."""
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        if self.base is None:
            self._check_new()
        else:
            self._check_based()

    def _check_new(self) -> None:
        if self.autoencoder is None or self.coarse is None:
            raise Mv3dError("a new model needs its stages autoencoder and coarse; or name a base")
        if self.init != "random":
            raise Mv3dError("init: base: name the base")
        why = "that is for a base; name one, or leave it out"
        _refuse(self, ("num_views", "turns", "category", "validation_split"), "", why)
        _refuse(self.diffusion, _OF_A_BASE, "diffusion.", why)
        if self.autoencoder.decoder_sees_views and not self.diffusion.train_decoder:
            raise Mv3dError("autoencoder.decoder_sees_views needs diffusion.train_decoder, which teaches it to")
        if self.autoencoder.decoder_only and self.start_from is None:
            raise Mv3dError("autoencoder.decoder_only keeps the encoder of start_from: name a model folder there")

    def _check_based(self) -> None:
        for name in ("num_views", "model_name"):
            if getattr(self, name) == _default(self, name):
                raise Mv3dError(f"missing {name}: say it of what is made of {self.base}")
        _refuse(self, ("autoencoder", "coarse"), "", f"{self.base} has its own; leave it out")
        _refuse(self, ("start_from", "licence"), "", f"that comes from the base, {self.base}; leave it out")
        _refuse(self.diffusion, _OF_DECODED_FRAMES, "diffusion.", "that is for a new model, without a base")
        if self.init == "base":
            why = f"{self.base} has its own; leave it out, or begin with a new UNet by init: random"
            _refuse(self.diffusion, _OF_A_NEW_UNET, "diffusion.", why)

    @property
    def encoded_px(self) -> int:
        """The side of the frames that a new model encodes."""
        assert self.base is None, "a base tells it"
        return self.resolution_px or _RESOLUTION_PX

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The stages that are trained, in this order."""
        names: tuple[StageName, ...] = ("autoencoder", "coarse", "diffusion")
        return tuple(name for name in names if getattr(self, name) is not None)

    def frames_px(self, stage: str) -> int:
        """The size of a stage's frames: where the autoencoder enlarges, what decodes is compared with what it gives."""
        if stage == "coarse" and self.coarse is not None:
            return self.coarse.network.picture_px
        assert self.autoencoder is not None, "a base's frames are of its own size"
        return self.encoded_px * self.autoencoder.upscale_factor

    def data_of(self, stage: str) -> tuple[Path, ...]:
        """The rendered folders that a stage learns from."""
        own = self.coarse.data if stage == "coarse" and self.coarse is not None else ()
        return own or self.data


def _default(config: Any, name: str) -> Any:
    known = next(f for f in dataclasses.fields(config) if f.name == name)
    return known.default if known.default_factory is dataclasses.MISSING else known.default_factory()


def _refuse(config: Any, names: Sequence[str], where: str, why: str) -> None:
    """Refuse what would be read and not heeded."""
    for name in names:
        if getattr(config, name) != _default(config, name):
            raise Mv3dError(f"{where}{name}: {why}")

"""What a training run is: typed dataclasses filled 1:1 from YAML; an unknown key is an error with a suggestion."""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from finetune.limits import (
    Count,
    CountOrNone,
    EmbeddingWidth,
    LayersPerBlock,
    LogSigma,
    NumViews,
    Positive,
    ResolutionPx,
    SamplingSteps,
    Seed,
    Share,
    SmallWidth,
    Spread,
    UNetWidth,
    Weight,
    Within,
    check_heads,
    check_sigmas,
)
from finetune.recipe import LoopConfig, Recipe
from mv3d.errors import Mv3dError
from mv3d.model.coarse import CoarseConfig
from mv3d.model.volume import CoarseVolumeConfig

StageName = Literal["autoencoder", "volume", "coarse", "diffusion"]

_SHORTLY = reprlib.Repr()  # YAML's aliases make values that are told without end
_SHORTLY.maxlevel = 2


@dataclass(frozen=True)
class AutoencoderStage:
    """The mini model's autoencoder: RGB on white and alpha, 8 times down (Rombach et al. 2022, without the critic)."""

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
class VolumeStage:
    """The coarse volume, against views of the same orbit."""

    loop: LoopConfig
    network: CoarseVolumeConfig = field(default_factory=CoarseVolumeConfig)
    render_px: Annotated[int, Within(4, 4096)] = 48
    num_samples: Annotated[int, Within(1, 4096)] = 48
    mask_weight: Weight = 0.5
    lpips_weight: Weight = 0.1
    occupancy_weight: Weight = 0.3
    occupancy_points: Annotated[int, Within(2, 2**20)] = 8192
    """Points per object at which the density is compared with what the orbit's views show to be empty."""
    colour_weight: Weight = 0.5
    colour_points: Count = 4096
    """Points on the object's visible surface at which the colour is compared with the pixel that shows them."""

    def __post_init__(self) -> None:
        if self.lpips_weight and self.render_px < 16:
            raise Mv3dError(f"volume.render_px {self.render_px}: LPIPS sees none smaller than 16; or lpips_weight: 0")


@dataclass(frozen=True)
class CoarseStage:
    """The coarse network, against the space that objects fill."""

    loop: LoopConfig
    data: tuple[Path, ...]
    """Folders of orbit folders with ``--passes depth occupancy``."""
    network: CoarseConfig = field(default_factory=CoarseConfig)
    pretrained_backbone: bool = True
    frozen_stages: Annotated[int, Within(0, 7)] = 2
    """Of the backbone, the first ones, which are the dearest, stay as they were."""
    rays_per_picture: Count = 1024
    """At most so many are compared with the truth."""
    alone_weight: Weight = 0.5
    """Of what each picture's rays say without the grid."""
    geometry_weight: Weight = 0.5
    colour_weight: Weight = 2.0
    colour_points: Count = 2048
    elevation_noise_deg: Weight = 4.0


@dataclass(frozen=True)
class DiffusionStage:
    """The video diffusion model on cached latents (EDM, Karras et al. 2022; SVD and SV3D for the conditions)."""

    loop: LoopConfig
    channels: tuple[UNetWidth, ...] = (64, 128, 192)
    heads: tuple[Count, ...] = (2, 4, 6)
    layers_per_block: LayersPerBlock = 1
    cross_attention_dim: Annotated[int, Within(1, 8192)] = 128
    id_embed_dim: EmbeddingWidth = 64
    pose_embed_dim: EmbeddingWidth = 128
    p_mean: LogSigma = 0.7
    """Mean of ln sigma (SVD, appendix D.2)."""
    p_std: Spread = 1.6
    condition_dropout: Share = 0.1
    cond_aug: Weight = 1e-5
    lpips_weight: Weight = 0.0
    """Of the decoded estimate's LPIPS beside EDM's loss: few steps of sampling then give sharp frames."""
    pixel_weight: Weight = 0.0
    """Of the decoded estimate's mean squared error, colours on white and alpha in [0, 1]: what PSNR and IoU measure."""
    critic_weight: Weight = 0.0
    """Of what a critic, trained along, says of the decoded estimate: how long its gradient is beside that of LPIPS and
    pixels together (`finetune.critic`)."""
    lpips_frames: NumViews = 2
    """Frames of each clip that are decoded for these three, at the size the model gives."""
    train_decoder: bool = False
    """Train the autoencoder's decoder along, by these three: it learns to show what the UNet is unsure of."""
    inputs_per_orbit: NumViews = 1
    """How many views of each orbit serve as the input picture; their coarse latents are cached."""
    sampling_steps: SamplingSteps = 10
    sigma_min: Positive = 0.02
    sigma_max: Positive = 80.0
    guidance_high: Weight = 1.0

    def __post_init__(self) -> None:
        check_heads(self.channels, self.heads, "diffusion")
        check_sigmas(self.sigma_min, self.sigma_max, "diffusion")
        compared = self.lpips_weight or self.pixel_weight
        if self.train_decoder and not compared:
            raise Mv3dError("diffusion.train_decoder needs a lpips_weight or a pixel_weight to train it by")
        if self.critic_weight and not compared:
            raise Mv3dError("diffusion.critic_weight is a share, of a lpips_weight or a pixel_weight; give one")


@dataclass(frozen=True)
class RunConfig:
    """One model: where its data is, where it grows, and its stages in the order they are trained."""

    data: tuple[Path, ...]
    """Folders of orbit folders with their manifest.jsonl, as ``python -m render orbits`` writes them; or files in such
    folders that name some of the objects, as ``curate`` writes them (``data/orbits/broad.txt``)."""
    run: Path
    """Caches, checkpoints, logs and the assembled model; a leg of any length continues here."""
    autoencoder: AutoencoderStage
    volume: VolumeStage
    diffusion: DiffusionStage
    coarse: CoarseStage | None = None
    resolution_px: ResolutionPx = 128
    seed: Seed = 0
    start_from: Path | None = None
    """A model folder whose weights the stages begin with instead of random ones."""
    validation_objects: CountOrNone = 8
    model_name: str = "mini"
    licence: str = "CC-BY-4.0"
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        if self.autoencoder.decoder_sees_views and not self.diffusion.train_decoder:
            raise Mv3dError("autoencoder.decoder_sees_views needs diffusion.train_decoder, which teaches it to")
        _check_volume(self.volume.network, self.resolution_px)
        if self.autoencoder.decoder_only and self.start_from is None:
            raise Mv3dError("autoencoder.decoder_only keeps the encoder of start_from: name a model folder there")

    def frames_px(self, stage: str) -> int:
        """The size of a stage's frames: where the autoencoder enlarges, what decodes is compared with what it gives."""
        if stage == "coarse" and self.coarse is not None:
            return self.coarse.network.picture_px
        return self.resolution_px * (self.autoencoder.upscale_factor if stage != "volume" else 1)

    def data_of(self, stage: str) -> tuple[Path, ...]:
        """The rendered folders that a stage learns from."""
        return self.coarse.data if stage == "coarse" and self.coarse is not None else self.data


def _check_volume(network: CoarseVolumeConfig, resolution_px: int) -> None:
    image, grid = network.image_channels, network.grid_channels
    if not image or len(image) != len(grid):
        raise Mv3dError(f"volume.network: {len(image)} image_channels, {len(grid)} grid_channels; give as many of both")
    for name in ("image_channels", "grid_channels"):
        for width in getattr(network, name):
            Within(8, 4096, multiple_of=8).check(width, f"volume.network.{name}")
    Within(32, 4096, multiple_of=2 ** len(image)).check(network.picture_px, "volume.network.picture_px")
    Within(4, 256, multiple_of=2 ** (len(grid) - 1)).check(network.grid_size, "volume.network.grid_size")
    Within(1, 8).check(network.density_upsampling, "volume.network.density_upsampling")
    Within(1, 170).check(network.fov_deg, "volume.network.fov_deg")
    if resolution_px % 2 ** len(image):
        raise Mv3dError(
            f"resolution_px {resolution_px} is halved once for each of volume.network's {len(image)} image_channels; "
            f"give a multiple of {2 ** len(image)}"
        )


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig | Recipe:
    """Read a YAML file; ``overrides`` are ``section.key=value`` with YAML values.

    With a ``base`` it is a `Recipe`, which adapts a model that there is; else a `RunConfig`, which trains a new one.

    Raises:
        Mv3dError: for a file that is no YAML mapping, an unknown key, a missing key or a value of another type.
    """
    try:
        if path.exists() and not path.is_file():
            raise Mv3dError(f"{path} is no file; name a YAML file, such as the presets in configs/")
        tree = _parse(path.read_text(), f"{path} is")
    except FileNotFoundError:
        raise Mv3dError(f"{path} does not exist; presets are in configs/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Mv3dError(f"{path} is no readable YAML: {error}") from error
    if not isinstance(tree, dict):
        raise Mv3dError(f"{path} must hold keys and values, not {type(tree).__name__}")
    for override in overrides or []:
        name, equals, value = override.partition("=")
        if not equals:
            raise Mv3dError(f"--set wants key=value, got {override!r}")
        _put(tree, name.split("."), _parse(value, f"--set {override[:60]}: the value is"))
    return _build(Recipe if "base" in tree else RunConfig, tree, str(path))


def _parse(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # some numbers and dates are none
        told = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise Mv3dError(f"{what} no readable YAML: {told}") from None


def _put(tree: dict, names: list[str], value: Any) -> None:
    for name in names[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise Mv3dError(f"--set: {'.'.join(names)} goes through {name}, which is a value")
    tree[names[-1]] = value


def _build(kind: type, tree: dict, where: str) -> Any:
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key in tree:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(known)}"
            raise Mv3dError(f"{where}: unknown key {_SHORTLY.repr(key)}{hint}")
    required = [n for n, f in known.items() if f.default is f.default_factory is dataclasses.MISSING and n not in tree]
    if required:
        raise Mv3dError(f"{where}: missing {', '.join(required)}")
    return kind(**{key: _convert(hints[key], value, f"{where}: {key}") for key, value in tree.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise Mv3dError(f"{where} must hold keys and values, got {_SHORTLY.repr(value)}")
        return _build(kind, value, where)
    origin = typing.get_origin(kind)
    if origin is Annotated:
        plain, limits = typing.get_args(kind)
        checked = _convert(plain, value, where)
        limits.check(checked, where)
        return checked
    if origin in (typing.Union, types.UnionType):
        kinds = [k for k in typing.get_args(kind) if k is not type(None)]
        return None if value is None else _convert(kinds[0], value, where)
    if origin is tuple:
        kind = typing.get_args(kind)[0]
        if kind is Path and isinstance(value, str):  # one folder needs no brackets
            value = [value]
        if not isinstance(value, list) or not value:
            raise Mv3dError(f"{where} must be a list of one or more, got {_SHORTLY.repr(value)}")
        return tuple(_convert(kind, v, where) for v in value)
    if origin is Literal:
        if value in typing.get_args(kind):
            return value
        known = ", ".join(map(str, typing.get_args(kind)))
        raise Mv3dError(f"{where} must be one of {known}, got {_SHORTLY.repr(value)}")
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        try:
            return Path(value).expanduser()
        except RuntimeError as error:  # the home of nobody that is known
            raise Mv3dError(f"{where} is {value}: {error}") from None
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-4 as a string
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    if type(value) is kind and kind is not float:
        return value
    wanted = {float: "a finite number", Path: "a path"}.get(kind) or getattr(kind, "__name__", kind)
    raise Mv3dError(f"{where} must be {wanted}, got {_SHORTLY.repr(value)}")

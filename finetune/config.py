"""What a training run is: typed dataclasses filled 1:1 from YAML; an unknown key is an error with a suggestion."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from finetune.recipe import LoopConfig, Recipe
from mv3d.errors import Mv3dError
from mv3d.model.volume import CoarseVolumeConfig

StageName = Literal["autoencoder", "volume", "diffusion"]


@dataclass(frozen=True)
class AutoencoderStage:
    """The mini model's autoencoder: RGB on white and alpha, 8 times down (Rombach et al. 2022, without the critic)."""

    loop: LoopConfig
    channels: tuple[int, ...] = (24, 48, 96, 128)
    latent_channels: int = 8
    upscale_factor: int = 1
    """Decode to frames so many times larger than ``resolution_px``, a power of two."""
    decoder_sees_views: bool = False
    """Decode beside the coarse views at full size; the diffusion stage's ``train_decoder`` teaches the decoder to."""
    decoder_only: bool = False
    """Leave the encoder as ``start_from`` has it, and with it what a diffusion model learnt of its latents."""
    lpips_weight: float = 0.5
    kl_weight: float = 1e-6

    def __post_init__(self) -> None:
        if self.upscale_factor < 1 or self.upscale_factor.bit_count() != 1:
            raise Mv3dError(f"autoencoder.upscale_factor {self.upscale_factor} is no power of two")


@dataclass(frozen=True)
class VolumeStage:
    """The coarse volume, against views of the same orbit."""

    loop: LoopConfig
    network: CoarseVolumeConfig = field(default_factory=CoarseVolumeConfig)
    render_px: int = 48
    num_samples: int = 48
    mask_weight: float = 0.5
    lpips_weight: float = 0.1
    occupancy_weight: float = 0.3
    occupancy_points: int = 8192
    """Points per object at which the density is compared with what the orbit's views show to be empty."""
    colour_weight: float = 0.5
    colour_points: int = 4096
    """Points on the object's visible surface at which the colour is compared with the pixel that shows them."""


@dataclass(frozen=True)
class DiffusionStage:
    """The video diffusion model on cached latents (EDM, Karras et al. 2022; SVD and SV3D for the conditions)."""

    loop: LoopConfig
    channels: tuple[int, ...] = (64, 128, 192)
    heads: tuple[int, ...] = (2, 4, 6)
    layers_per_block: int = 1
    cross_attention_dim: int = 128
    id_embed_dim: int = 64
    pose_embed_dim: int = 128
    p_mean: float = 0.7
    """Mean of ln sigma (SVD, appendix D.2)."""
    p_std: float = 1.6
    condition_dropout: float = 0.1
    cond_aug: float = 1e-5
    lpips_weight: float = 0.0
    """Of the decoded estimate's LPIPS beside EDM's loss: few steps of sampling then give sharp frames."""
    pixel_weight: float = 0.0
    """Of the decoded estimate's mean squared error, colours on white and alpha in [0, 1]: what PSNR and IoU measure."""
    critic_weight: float = 0.0
    """Of what a critic, trained along, says of the decoded estimate: how long its gradient is beside that of LPIPS and
    pixels together (`finetune.critic`)."""
    lpips_frames: int = 2
    """Frames of each clip that are decoded for these three, at the size the model gives."""
    train_decoder: bool = False
    """Train the autoencoder's decoder along, by these three: it learns to show what the UNet is unsure of."""
    inputs_per_orbit: int = 1
    """How many views of each orbit serve as the input picture; their coarse latents are cached."""
    sampling_steps: int = 10
    sigma_min: float = 0.02
    sigma_max: float = 80.0
    guidance_high: float = 1.0

    def __post_init__(self) -> None:
        compared = self.lpips_weight or self.pixel_weight
        if self.train_decoder and not compared:
            raise Mv3dError("diffusion.train_decoder needs a lpips_weight or a pixel_weight to train it by")
        if self.critic_weight and not compared:
            raise Mv3dError("diffusion.critic_weight is a share, of a lpips_weight or a pixel_weight; give one")


@dataclass(frozen=True)
class RunConfig:
    """One model: where its data is, where it grows, and its stages in the order they are trained."""

    data: tuple[Path, ...]
    """Folders of orbit folders with their manifest.jsonl, as ``python -m render orbits`` writes them."""
    run: Path
    """Caches, checkpoints, logs and the assembled model; a leg of any length continues here."""
    autoencoder: AutoencoderStage
    volume: VolumeStage
    diffusion: DiffusionStage
    resolution_px: int = 128
    seed: int = 0
    start_from: Path | None = None
    """A model folder whose weights the stages begin with instead of random ones."""
    validation_objects: int = 8
    model_name: str = "mini"
    licence: str = "CC-BY-4.0"
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        if self.autoencoder.decoder_sees_views and not self.diffusion.train_decoder:
            raise Mv3dError("autoencoder.decoder_sees_views needs diffusion.train_decoder, which teaches it to")
        if self.autoencoder.decoder_only and self.start_from is None:
            raise Mv3dError("autoencoder.decoder_only keeps the encoder of start_from: name a model folder there")

    def frames_px(self, stage: str) -> int:
        """The size of a stage's frames: where the autoencoder enlarges, what decodes is compared with what it gives."""
        return self.resolution_px * (self.autoencoder.upscale_factor if stage != "volume" else 1)


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig | Recipe:
    """Read a YAML file; ``overrides`` are ``section.key=value`` with YAML values.

    With a ``base`` it is a `Recipe`, which adapts a model that there is; else a `RunConfig`, which trains a new one.

    Raises:
        Mv3dError: for a file that is no YAML mapping, an unknown key, a missing key or a value of another type.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise Mv3dError(f"{path} does not exist; presets are in configs/") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Mv3dError(f"{path} is no readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise Mv3dError(f"{path} must hold keys and values, not {type(tree).__name__}")
    for override in overrides or []:
        name, equals, value = override.partition("=")
        if not equals:
            raise Mv3dError(f"--set wants key=value, got {override!r}")
        _put(tree, name.split("."), yaml.safe_load(value))
    return _build(Recipe if "base" in tree else RunConfig, tree, str(path))


def _put(tree: dict, names: list[str], value: Any) -> None:
    for name in names[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise Mv3dError(f"--set: {'.'.join(names)} goes through {name}, which is a value")
    tree[names[-1]] = value


def _build(kind: type, tree: dict, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key in tree:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(known)}"
            raise Mv3dError(f"{where}: unknown key {key!r}{hint}")
    required = [n for n, f in known.items() if f.default is f.default_factory is dataclasses.MISSING and n not in tree]
    if required:
        raise Mv3dError(f"{where}: missing {', '.join(required)}")
    return kind(**{key: _convert(hints[key], value, f"{where}: {key}") for key, value in tree.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise Mv3dError(f"{where} must hold keys and values, got {value!r}")
        return _build(kind, value, where)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        kinds = [k for k in typing.get_args(kind) if k is not type(None)]
        return None if value is None else _convert(kinds[0], value, where)
    if origin is tuple:
        kind = typing.get_args(kind)[0]
        if kind is Path and isinstance(value, str):  # one folder needs no brackets
            value = [value]
        if not isinstance(value, list):
            raise Mv3dError(f"{where} must be a list, got {value!r}")
        return tuple(_convert(kind, v, where) for v in value)
    if origin is Literal:
        if value in typing.get_args(kind):
            return value
        raise Mv3dError(f"{where} must be one of {', '.join(map(str, typing.get_args(kind)))}, got {value!r}")
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if type(value) is kind:
        return value
    raise Mv3dError(f"{where} must be {getattr(kind, '__name__', kind)}, got {value!r}")

"""The networks that find an object's surface, in a model's folder: its first stage, which needs none of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from mv3d.model.coarse import CoarseConfig, CoarseNet
from mv3d.model.volume import CoarseVolume, CoarseVolumeConfig
from mv3d.model.weights import load_module


class SurfaceNetworks(NamedTuple):
    """What a model has of them; both None of one that has no coarse stage."""

    volume: CoarseVolume | None
    coarse: CoarseNet | None
    """Finds the surface and estimates a picture's elevation."""


def load_surface_networks(folder: Path) -> SurfaceNetworks:
    """Load those that a model's folder has, on the CPU; raises `Mv3dError` as `mv3d.model.weights.load_module`."""
    volume, coarse = folder / "volume", folder / "coarse"  # geometry: always float32
    return SurfaceNetworks(
        volume=load_module(_make_volume, volume) if volume.is_dir() else None,
        coarse=load_module(_make_coarse, coarse) if coarse.is_dir() else None,
    )


def _make_volume(config: dict[str, Any]) -> CoarseVolume:
    return CoarseVolume(CoarseVolumeConfig(**_with_tuples(config)))


def _make_coarse(config: dict[str, Any]) -> CoarseNet:
    return CoarseNet(CoarseConfig(**_with_tuples(config)))


def _with_tuples(config: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}

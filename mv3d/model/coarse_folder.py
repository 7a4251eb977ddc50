"""The coarse network in a model's folder, which is read without the other networks, and without diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mv3d.errors import Mv3dError
from mv3d.model.coarse import CoarseNet
from mv3d.model.coarse_config import CoarseConfig
from mv3d.model.weights import load_module

COARSE_FOLDER = "coarse"


def load_coarse(folder: Path) -> CoarseNet | None:
    """Load a model folder's coarse network on the CPU, in float32: it is geometry. None of one that has none.

    Raises:
        Mv3dError: as `mv3d.model.weights.load_module`, and for a folder with a coarse volume, which is read no more.
    """
    coarse = folder / COARSE_FOLDER
    if (folder / "volume").is_dir() and not coarse.is_dir():
        raise Mv3dError(
            f"{folder} has a volume/, which is read no more, and no coarse/; take a newer version of the model, or "
            "train its stage coarse (configs/mini.yaml)"
        )
    return load_module(_make_coarse, coarse) if coarse.is_dir() else None


def _make_coarse(config: dict[str, Any]) -> CoarseNet:
    sizes: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    return CoarseNet(CoarseConfig(**sizes))

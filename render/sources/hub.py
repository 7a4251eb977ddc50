"""Objaverse's files: where its own package keeps them, or else from the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from mv3d.errors import Mv3dError

_REPOSITORY = "allenai/objaverse"
_TRIES = 3


def read_json(root: Path, name: str) -> Any:
    """What a compressed JSON file of the index holds.

    Raises:
        Mv3dError: if it is damaged, or not there and cannot be had.
    """
    path = fetch(root, name)
    try:
        return json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise Mv3dError(f"{path} is damaged ({error}); remove it, and it is downloaded again") from None


def fetch(root: Path, name: str) -> Path:
    """The file, downloaded if it is not there; the hub's library checks its length and keeps what it had of it.

    Raises:
        Mv3dError: if it cannot be had, or would be outside ``root``.
    """
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise Mv3dError(f"Objaverse's index names {name}, which is outside its folder")
    problem: Exception | None = None
    for _ in range(0 if path.is_file() else _TRIES):
        try:
            from huggingface_hub import hf_hub_download

            hf_hub_download(_REPOSITORY, name, repo_type="dataset", local_dir=root)
            break
        except Exception as error:  # the hub's library has a dozen kinds, from several others
            problem = error
    if not path.is_file():
        raise Mv3dError(f"{name} of Objaverse is not in {root} and cannot be downloaded: {_line(problem)}")
    return path


def _line(error: Exception | None) -> str:
    return " ".join(str(error).split())[:200]

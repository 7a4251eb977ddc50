"""The catalogue inside a Sweet Home 3D furniture library: a Java properties file with a number for each model."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mv3d.errors import Mv3dError
from render.errors import Unusable
from render.sources.zipped import read_member

_NAME = "PluginFurnitureCatalog.properties"


def read_catalogue(path: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """What a library says of itself, and of each of its models: values by their keys, a model's without its number.

    Raises:
        Mv3dError: if it is no library, or lists a model that is not in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = parse_properties(read_member(archive, _NAME).decode("latin-1"))
            members = set(archive.namelist())
    except (zipfile.BadZipFile, KeyError, OSError, Unusable) as error:
        raise Mv3dError(f"{path} is no Sweet Home 3D furniture library: {str(error).strip(chr(34))}") from None
    models: dict[int, dict[str, str]] = {}
    for key, value in entries.items():
        if numbered := re.fullmatch(r"(\w+)#(\d+)", key):
            models.setdefault(int(numbered[2]), {})[numbered[1]] = value
    listed = [models[number] for number in sorted(models) if "model" in models[number]]
    for model in listed:
        model["model"] = model["model"].lstrip("/")
        if model["model"] not in members:
            raise Mv3dError(f"{path} is damaged: its catalogue lists {model['model']}, which is not in the file")
    return entries, listed


def parse_rotation(text: str) -> NDArray[np.float64]:
    """A model's correction, (3, 3), written row by row.

    Raises:
        Unusable: if it is none.
    """
    try:
        return np.reshape([float(part) for part in text.split()], (3, 3))
    except ValueError:
        raise Unusable(f"its catalogue turns it by {text[:40]!r}, which is no 3x3 matrix") from None


def parse_properties(text: str) -> dict[str, str]:
    """Read Java properties as far as furniture catalogues use them."""
    entries = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", "!")):
            plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), value.strip())
            entries[key.strip()] = " ".join(re.sub(r"\\(.)", r"\1", plain).split())
    return entries

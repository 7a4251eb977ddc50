"""0 A.D.'s ``public.zip``: actors, meshes and pictures by the names that actors use."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from mv3d.errors import Mv3dError
from render.errors import Unusable
from render.sources.pmd import PmdMesh, read_pmd
from render.sources.zipped import read_member

if TYPE_CHECKING:
    from PIL import Image

_ACTORS = "art/actors/"


class Archive:
    """The open archive, read file by file."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self.actors = [
            name.removeprefix(_ACTORS)
            for name in self._zip.namelist()
            if name.startswith(_ACTORS) and name.endswith(".xml")
        ]
        """Their names, inside art/actors."""

    def read(self, name: str) -> bytes:
        """A file's bytes; a `KeyError` if there is none, `Unusable` if it is damaged."""
        return read_member(self._zip, name)

    def mesh(self, name: str) -> PmdMesh:
        """A mesh by the name actors use."""
        try:
            return read_pmd(self.read(f"art/meshes/{name}.cached.pmd"), name)
        except KeyError:
            raise Unusable(f"mesh {name} is missing") from None

    def texture(self, name: str) -> Image.Image:
        """A picture by the name actors use."""
        from PIL import Image

        try:
            return Image.open(BytesIO(self.read(f"art/textures/skins/{name}.cached.dds")))
        except (KeyError, OSError) as error:
            raise Unusable(f"texture {name} is missing or damaged: {error}") from error


@lru_cache(maxsize=2)
def open_archive(path: Path) -> Archive:
    """The archive, whose list of files is read once for many objects.

    Raises:
        Mv3dError: if it is no zip archive.
    """
    try:
        return Archive(path)
    except zipfile.BadZipFile:
        raise Mv3dError(f"{path} is no zip archive, or a damaged one; fetch it again") from None

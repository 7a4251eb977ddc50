"""Files inside zip archives, for trimesh."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from render.errors import Unusable

if TYPE_CHECKING:
    from trimesh.resolvers import Resolver


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file's bytes; a `KeyError` if there is none.

    Raises:
        Unusable: if it is damaged, encrypted, or packed in a way that nothing here unpacks.
    """
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise Unusable(f"{name} is damaged in its archive: {error}") from error


def zip_resolver(archive: zipfile.ZipFile, folder: str) -> Resolver:
    """Let trimesh fetch a model's materials and pictures out of the library, by exact or case-blind name."""
    from trimesh.resolvers import Resolver

    by_lower = {name.lower(): name for name in archive.namelist()}

    class ZipFolder(Resolver):
        def __init__(self) -> None:
            pass

        def get(self, name: str) -> bytes:
            wanted = str(PurePosixPath(folder) / name.replace("\\", "/").removeprefix("./"))
            if wanted.lower() not in by_lower:
                raise FileNotFoundError(wanted)
            return read_member(archive, by_lower[wanted.lower()])

        def keys(self) -> list[str]:
            return [name.removeprefix(folder + "/") for name in archive.namelist() if name.startswith(folder + "/")]

        def write(self, name: str, data: bytes) -> None:
            raise NotImplementedError("libraries are only read")

        def namespaced(self, namespace: str) -> Resolver:
            return zip_resolver(archive, f"{folder}/{namespace}")

    return ZipFolder()

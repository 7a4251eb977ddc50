"""What every source of objects promises: objects that can be listed without being loaded, and loaded by themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import trimesh

Z_UP_FROM_Y_UP = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class SourceObject:
    """One object that can be loaded; each source adds where it finds it.

    It travels to worker processes, so it holds names and numbers and no open file.
    """

    object_id: str
    """Unique in its source and safe as a relative path."""
    name: str
    category: str | None = None
    licence: str | None = None
    attribution: str | None = None
    path: Path
    """The mesh file, library or archive it is read from."""
    member: str | None = None
    """Its path inside the library or archive."""
    split: str | None = None
    """The side of the split that the user gave it; else its shape decides."""
    shape: str | None = None
    """What objects that differ in their skin alone have in common; None where the source cannot tell."""

    @property
    def linear_colours(self) -> bool:
        """Whether material and vertex colours are linear light (glTF) and not sRGB (everything else)."""
        return False

    def load(self) -> trimesh.Scene:
        """Load the object with Z up and its front to -Y."""
        raise NotImplementedError

    def load_identity(self) -> trimesh.Scene | None:
        """The geometry that decides which side of the split the object is on, if it is not all that `load` returns."""
        return None

    def write_files(self, folder: Path) -> tuple[Path, NDArray[np.float64]]:
        """Put the object into an empty folder, in a format that Blender reads.

        Returns:
            The file, and the transform (4, 4) from where Blender's importer puts it to where `load` does.
        """
        from render.sources.glb import write_glb

        path = folder / "object.glb"
        write_glb(self.load(), path, y_up_from_scene=np.linalg.inv(Z_UP_FROM_Y_UP))
        return path, np.eye(4)


class Source(Protocol):
    """A kind of place where objects are: a module of this package with these two functions."""

    def claims(self, path: Path) -> bool:
        """Whether a file is one of this source's; looks into it only where its name does not tell."""
        ...

    def list_objects(self, paths: Sequence[Path], root: Path) -> list[SourceObject]:
        """The objects of the claimed files, all of them inside ``root``.

        Raises:
            Mv3dError: if a file is not what its name says.
        """
        ...


def slug(text: str) -> str:
    """Make text safe as a part of a path."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-") or "object"

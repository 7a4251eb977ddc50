"""Mesh files, alone or in folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from render.sources.base import Z_UP_FROM_Y_UP, SourceObject, slug
from render.sources.loading import load_scene
from render.sources.obj import load_obj

if TYPE_CHECKING:
    import trimesh

SUFFIXES = (".obj", ".glb", ".gltf", ".ply", ".stl", ".dae")
_Z_UP_SUFFIXES = (".ply", ".stl")


@dataclass(frozen=True, kw_only=True)
class MeshFile(SourceObject):
    """A mesh file."""

    @property
    def linear_colours(self) -> bool:
        """Only glTF's are."""
        return self._suffix in (".glb", ".gltf")

    @property
    def _suffix(self) -> str:
        return self.path.suffix.lower()

    def load(self) -> trimesh.Scene:
        """Load the file; the asset's front (+Z where Y is up) then faces -Y."""
        return self._load(cut_faces=True)

    def load_identity(self) -> trimesh.Scene | None:
        """How concave faces are cut is our choice, and may be made better; no object may change sides for that."""
        return self._load(cut_faces=False) if self._suffix == ".obj" else None

    def _load(self, *, cut_faces: bool) -> trimesh.Scene:
        from trimesh.resolvers import FilePathResolver

        resolver = FilePathResolver(str(self.path))
        if self._suffix == ".obj":
            scene = load_obj(self.path.read_bytes(), resolver, cut_faces=cut_faces)
        else:
            scene = load_scene(self.path, resolver)
        if self._y_is_up():
            scene.apply_transform(Z_UP_FROM_Y_UP)
        return scene

    def write_files(self, folder: Path) -> tuple[Path, NDArray[np.float64]]:
        """The file where it is."""
        return self.path, np.eye(4)

    def _y_is_up(self) -> bool:
        if self._suffix == ".dae":
            return b"Z_UP" not in self.path.read_bytes()
        return self._suffix not in _Z_UP_SUFFIXES


def claims(path: Path) -> bool:
    """Take what trimesh reads."""
    return path.suffix.lower() in SUFFIXES


def list_objects(paths: Sequence[Path], root: Path) -> list[SourceObject]:
    """One object a file, named by its place in ``root``."""
    return [
        MeshFile(
            object_id="/".join(slug(part) for part in path.relative_to(root).with_suffix("").parts),
            name=path.stem,
            path=path,
        )
        for path in paths
    ]

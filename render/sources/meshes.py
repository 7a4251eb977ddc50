"""Mesh files, alone or in folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from render.sources.base import Z_UP_FROM_Y_UP, SourceObject, slug
from render.sources.collada import read_asset
from render.sources.gltf import load_gltf
from render.sources.loading import GREY, load_scene
from render.sources.obj import load_obj

if TYPE_CHECKING:
    import trimesh

SUFFIXES = (".obj", ".glb", ".gltf", ".ply", ".stl", ".dae")
_Z_UP_SUFFIXES = (".ply", ".stl")


@dataclass(frozen=True, kw_only=True)
class MeshFile(SourceObject):
    """A mesh file."""

    grey: bool = False
    """Whether it is to be grey if it has no colour, and not left out."""

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
        elif self.linear_colours:
            scene = load_gltf(self.path, resolver)
        else:
            scene = load_scene(self.path, resolver)
        scene.metadata[GREY] = self.grey
        if self._suffix == ".dae":
            scene.apply_transform(read_asset(self.path).z_up_from_file)
        elif self._suffix not in _Z_UP_SUFFIXES:
            scene.apply_transform(Z_UP_FROM_Y_UP)
        return scene

    def write_files(self, folder: Path) -> tuple[Path, NDArray[np.float64]]:
        """The file where it is; of those whose unit is not the metre, Blender's importer makes metres."""
        metres = read_asset(self.path).metres if self._suffix == ".dae" else 1.0
        return self.path, np.diag([*np.full(3, 1 / metres), 1.0])


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

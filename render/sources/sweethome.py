"""Sweet Home 3D furniture libraries: zip archives of OBJ files with a catalogue (sweethome3d.com, `.sh3f`)."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from render.sources.base import Z_UP_FROM_Y_UP, SourceObject, slug
from render.sources.catalogue import parse_rotation, read_catalogue
from render.sources.loading import load_scene
from render.sources.obj import load_obj
from render.sources.zipped import read_member, zip_resolver

if TYPE_CHECKING:
    import trimesh

SUFFIX = ".sh3f"


@dataclass(frozen=True, kw_only=True)
class Furniture(SourceObject):
    """A model of a library."""

    member: str = ""
    rotation: str = "1 0 0 0 1 0 0 0 1"
    """The library's own 3x3 correction, row by row, as it says it."""

    def load(self) -> trimesh.Scene:
        """Load the model, turned as its catalogue says."""
        return self._load(cut_faces=True)

    def load_identity(self) -> trimesh.Scene | None:
        """How concave faces are cut is our choice, and may be made better; no object may change sides for that."""
        return self._load(cut_faces=False) if self.member.lower().endswith(".obj") else None

    def _load(self, *, cut_faces: bool) -> trimesh.Scene:
        model = PurePosixPath(self.member)
        with zipfile.ZipFile(self.path) as archive:
            data, resolver = read_member(archive, self.member), zip_resolver(archive, str(model.parent))
            if model.suffix.lower() == ".obj":
                scene = load_obj(data, resolver, cut_faces=cut_faces)
            else:
                scene = load_scene(BytesIO(data), resolver, file_type=model.suffix.lower()[1:])
        scene.apply_transform(Z_UP_FROM_Y_UP @ self._turn())
        return scene

    def write_files(self, folder: Path) -> tuple[Path, NDArray[np.float64]]:
        """The model with what lies beside it in the library."""
        model = PurePosixPath(self.member)
        with zipfile.ZipFile(self.path) as archive:
            for name in archive.namelist():
                inside = PurePosixPath(name)
                if inside.parent == model.parent and inside.name not in ("", ".."):
                    (folder / inside.name).write_bytes(archive.read(name))
        return folder / model.name, Z_UP_FROM_Y_UP @ self._turn() @ np.linalg.inv(Z_UP_FROM_Y_UP)

    def _turn(self) -> NDArray[np.float64]:
        turn = np.eye(4)
        turn[:3, :3] = parse_rotation(self.rotation)
        return turn


def claims(path: Path) -> bool:
    """Take libraries by their suffix."""
    return path.suffix.lower() == SUFFIX


def list_objects(paths: Sequence[Path], root: Path) -> list[SourceObject]:
    """Every model of every library."""
    return [item for path in paths for item in _library_objects(path)]


def _library_objects(path: Path) -> list[Furniture]:
    library, models = read_catalogue(path)
    place = f"{library.get('name', path.stem)}, {library.get('provider', path.name)}"
    objects = []
    for model in models:
        stem = PurePosixPath(model["model"]).stem
        name = model.get("name", stem)
        objects.append(
            Furniture(
                object_id=f"{slug(path.stem)}/{slug(model.get('id', stem).split('#')[-1])}",
                name=name,
                category=model.get("category"),
                licence=library.get("license"),
                attribution=f"{name} by {model.get('creator') or 'unknown'} ({place})",
                path=path,
                member=model["model"],
                rotation=model.get("modelRotation", Furniture.rotation),
            )
        )
    return objects

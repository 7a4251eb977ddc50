"""Sweet Home 3D furniture libraries: zip archives of OBJ files with a catalogue (sweethome3d.com, `.sh3f`)."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mv3d.errors import Mv3dError
from render.sources.base import Z_UP_FROM_Y_UP, SourceObject, slug
from render.sources.obj import load_obj
from render.sources.zipped import zip_resolver

if TYPE_CHECKING:
    import trimesh

SUFFIX = ".sh3f"
_CATALOGUE = "PluginFurnitureCatalog.properties"


@dataclass(frozen=True, kw_only=True)
class Furniture(SourceObject):
    """A model of a library."""

    member: str = ""
    rotation: tuple[float, ...] | None = None
    """The library's own 3x3 correction, row by row."""

    def load(self) -> trimesh.Scene:
        """Load the model, turned as its catalogue says."""
        return self._load(cut_faces=True)

    def load_identity(self) -> trimesh.Scene | None:
        """How concave faces are cut is our choice, and may be made better; no object may change sides for that."""
        return self._load(cut_faces=False) if self.member.lower().endswith(".obj") else None

    def _load(self, *, cut_faces: bool) -> trimesh.Scene:
        from io import BytesIO

        import trimesh

        model = PurePosixPath(self.member)
        with zipfile.ZipFile(self.path) as archive:
            data, resolver = archive.read(self.member), zip_resolver(archive, str(model.parent))
            if model.suffix.lower() == ".obj":
                scene = load_obj(data, resolver, cut_faces=cut_faces)
            else:
                kind = model.suffix.lower()[1:]
                scene = trimesh.load_scene(BytesIO(data), file_type=kind, resolver=resolver, process=False)
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
        if self.rotation is not None:
            turn[:3, :3] = np.reshape(self.rotation, (3, 3))
        return turn


def claims(path: Path) -> bool:
    """Take libraries by their suffix."""
    return path.suffix.lower() == SUFFIX


def list_objects(paths: Sequence[Path], root: Path) -> list[SourceObject]:
    """Every model of every library."""
    return [item for path in paths for item in _library_objects(path)]


def _library_objects(path: Path) -> list[Furniture]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _parse_properties(archive.read(_CATALOGUE).decode("latin-1"))
            members = set(archive.namelist())
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise Mv3dError(f"{path} is no Sweet Home 3D furniture library: {str(error).strip(chr(34))}") from None
    objects = []
    numbers = sorted(int(key[6:]) for key in entries if re.fullmatch(r"model#\d+", key))
    for number in numbers:
        member = entries[f"model#{number}"].lstrip("/")
        if member not in members:
            raise Mv3dError(f"{path} is damaged: its catalogue lists {member}, which is not in the file")
        name = entries.get(f"name#{number}", PurePosixPath(member).stem)
        short_id = entries.get(f"id#{number}", PurePosixPath(member).stem).split("#")[-1]
        rotation = entries.get(f"modelRotation#{number}")
        creator, library = entries.get(f"creator#{number}"), entries.get("name", path.stem)
        objects.append(
            Furniture(
                object_id=f"{slug(path.stem)}/{slug(short_id)}",
                name=name,
                category=entries.get(f"category#{number}"),
                licence=entries.get("license"),
                attribution=f"{name} by {creator or 'unknown'} ({library}, {entries.get('provider', path.name)})",
                path=path,
                member=member,
                rotation=tuple(map(float, rotation.split())) if rotation else None,
            )
        )
    return objects


def _parse_properties(text: str) -> dict[str, str]:
    """Read Java properties as far as furniture catalogues use them."""
    entries = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", "!")):
            plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), value.strip())
            entries[key.strip()] = " ".join(re.sub(r"\\(.)", r"\1", plain).split())
    return entries

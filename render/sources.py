"""Where objects come from: folders of mesh files and Sweet Home 3D furniture libraries."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from mv3d.errors import Mv3dError
from render.polygons import cut_concave_faces

if TYPE_CHECKING:
    import trimesh
    from trimesh.resolvers import Resolver

MESH_SUFFIXES = (".obj", ".glb", ".gltf", ".ply", ".stl", ".dae")
_Z_UP_SUFFIXES = (".ply", ".stl")
_LIBRARY_SUFFIX = ".sh3f"
_CATALOGUE = "PluginFurnitureCatalog.properties"
_Z_UP_FROM_Y_UP = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True)
class SourceObject:
    """One object that can be loaded: a mesh file, or a model inside a library."""

    object_id: str
    """Unique in its source and safe as a relative path."""
    name: str
    category: str | None
    licence: str | None
    attribution: str | None
    path: Path
    """The mesh file or the library."""
    member: str | None = None
    """The model's path inside the library."""
    rotation: tuple[float, ...] | None = None
    """The library's own 3x3 correction, row by row."""

    @property
    def linear_colours(self) -> bool:
        """Whether material and vertex colours are linear light (glTF) and not sRGB (everything else)."""
        return self._suffix in (".glb", ".gltf")

    @property
    def has_polygons(self) -> bool:
        """Whether the file may hold faces of more than three corners, which `load` cuts into triangles."""
        return self._suffix == ".obj"

    @property
    def _suffix(self) -> str:
        return PurePosixPath(self.member or self.path.name).suffix.lower()

    def load(self, *, cut_faces: bool = True) -> trimesh.Scene:
        """Load the object with Z up; the asset's front (+Z where Y is up) then faces -Y.

        Without ``cut_faces`` the concave faces of an OBJ file come as the fans that trimesh makes of them.
        """
        import trimesh
        from trimesh.resolvers import FilePathResolver

        if self.member is None:
            if self.has_polygons:
                scene = _load_obj(self.path.read_bytes(), FilePathResolver(str(self.path)), cut_faces)
            else:
                scene = trimesh.load_scene(self.path, process=False)
        else:
            with zipfile.ZipFile(self.path) as archive:
                data, resolver = archive.read(self.member), _resolver(archive, str(PurePosixPath(self.member).parent))
                if self.has_polygons:
                    scene = _load_obj(data, resolver, cut_faces)
                else:
                    scene = trimesh.load_scene(
                        BytesIO(data), file_type=self._suffix[1:], resolver=resolver, process=False
                    )
        if self.rotation is not None:
            turn = np.eye(4)
            turn[:3, :3] = np.reshape(self.rotation, (3, 3))
            scene.apply_transform(turn)
        if self._y_is_up():
            scene.apply_transform(_Z_UP_FROM_Y_UP)
        return scene

    def _y_is_up(self) -> bool:
        if self._suffix == ".dae" and self.member is None:
            return b"Z_UP" not in self.path.read_bytes()
        return self._suffix not in _Z_UP_SUFFIXES


def find_objects(source: Path) -> list[SourceObject]:
    """List the objects of a mesh file, a library, or a folder of either (searched through, sorted).

    Raises:
        Mv3dError: if there is no such file or folder, nothing in it can be read, or a library is none.
    """
    if not source.exists():
        raise Mv3dError(f"{source} does not exist; give a mesh file, a .sh3f library, or a folder of them")
    root = source if source.is_dir() else source.parent
    paths = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    objects: list[SourceObject] = []
    for path in paths:
        suffix = path.suffix.lower()
        if suffix == _LIBRARY_SUFFIX:
            objects += _library_objects(path)
        elif suffix in MESH_SUFFIXES:
            inside = path.relative_to(root)
            stem = "/".join(_slug(part) for part in inside.with_suffix("").parts)
            objects.append(SourceObject(stem, path.stem, None, None, None, path))
    if not objects:
        kinds = " ".join((*MESH_SUFFIXES, _LIBRARY_SUFFIX))
        raise Mv3dError(f"{source} holds no object; readable are {kinds}")
    return _with_unique_ids(objects)


def _library_objects(path: Path) -> list[SourceObject]:
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
            SourceObject(
                object_id=f"{_slug(path.stem)}/{_slug(short_id)}",
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


def _load_obj(data: bytes, resolver: Resolver, cut_faces: bool) -> trimesh.Scene:
    import trimesh

    if cut_faces:
        text = cut_concave_faces(data.decode("latin-1"))  # every byte has a letter there, so names pass unharmed
        data = text.encode("latin-1")
    return trimesh.load_scene(BytesIO(data), file_type="obj", resolver=resolver, process=False)


def _resolver(archive: zipfile.ZipFile, folder: str) -> Resolver:
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
            return archive.read(by_lower[wanted.lower()])

        def keys(self) -> list[str]:
            return [name.removeprefix(folder + "/") for name in archive.namelist() if name.startswith(folder + "/")]

        def write(self, name: str, data: bytes) -> None:
            raise NotImplementedError("libraries are only read")

        def namespaced(self, namespace: str) -> Resolver:
            return _resolver(archive, f"{folder}/{namespace}")

    return ZipFolder()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-") or "object"


def _with_unique_ids(objects: Iterable[SourceObject]) -> list[SourceObject]:
    seen: dict[str, int] = {}
    unique = []
    for item in objects:
        count = seen[item.object_id] = seen.get(item.object_id, 0) + 1
        unique.append(item if count == 1 else replace(item, object_id=f"{item.object_id}-{count}"))
    return unique

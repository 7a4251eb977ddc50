"""Where objects come from: each module here is a source; `find_objects` asks all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mv3d.errors import Mv3dError
from render.sources import megaglest, meshes, objaverse, sweethome, zeroad
from render.sources.base import Source, SourceObject

__all__ = ["SourceObject", "find_objects", "limit_skins"]

_SOURCES: tuple[Source, ...] = (sweethome, zeroad, megaglest, meshes)


def find_objects(source: Path | str) -> list[SourceObject]:
    """List the objects of a file, or of all files in a folder (searched through, sorted) that some source claims.

    A text that begins with ``objaverse:`` is a query instead, see `objaverse.select_objects`.

    Raises:
        Mv3dError: if there is no such file or folder, nothing in it can be read, or a library is none.
    """
    if str(source).startswith(objaverse.PREFIX):
        return objaverse.select_objects(str(source))
    source = Path(source)
    if not source.exists():
        raise Mv3dError(f"{source} does not exist; give a mesh file, a library of objects, or a folder of them")
    root = source if source.is_dir() else source.parent
    paths = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    claimed: dict[int, list[Path]] = {}
    for path in paths:
        for k, kind in enumerate(_SOURCES):
            if kind.claims(path):
                claimed.setdefault(k, []).append(path)
                break
    objects = [item for k in sorted(claimed) for item in _SOURCES[k].list_objects(claimed[k], root)]
    if not objects:
        kinds = " ".join((*meshes.SUFFIXES, sweethome.SUFFIX, megaglest.SUFFIX))
        raise Mv3dError(f"{source} holds no object; readable are {kinds}, and 0 A.D.'s public.zip")
    return _with_unique_ids(objects)


def limit_skins(objects: Iterable[SourceObject], most: int) -> list[SourceObject]:
    """Keep the first ``most`` objects of every shape, first ones before second ones: new shapes teach more."""
    seen: dict[str, int] = {}
    ranked = []
    for item in objects:
        key = item.shape or item.object_id
        rank = seen[key] = seen.get(key, 0) + 1
        if rank <= most:
            ranked.append((rank, item))
    return [item for _, item in sorted(ranked, key=lambda pair: pair[0])]


def _with_unique_ids(objects: Iterable[SourceObject]) -> list[SourceObject]:
    seen: dict[str, int] = {}
    unique = []
    for item in objects:
        count = seen[item.object_id] = seen.get(item.object_id, 0) + 1
        unique.append(item if count == 1 else replace(item, object_id=f"{item.object_id}-{count}"))
    return unique

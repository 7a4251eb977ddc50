"""Rendered collections: folders of orbits beside the manifests that list them. The one reader of all rooms.

A collection holds orbit folders ``<object_id>/<k>/``, and ``manifest.jsonl``, or ``manifest-K-of-N.jsonl`` of every
share of a job array: a line of JSON per object, an `Entry`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, get_type_hints

from mv3d.errors import Mv3dError
from mv3d.files import check_readable_file

SPLITS = ("train", "val", "test")
_MANIFEST = re.compile(r"manifest(-\d+-of-\d+)?\.jsonl")
_FOR_PEOPLE = {"orbit.mp4", "sheet.png"}


@dataclass(frozen=True)
class Entry:
    """A manifest's line, what became of one object: orbits and split, or the reason there are none."""

    object_id: str
    name: str = ""
    category: str | None = None
    source: str = ""
    licence: str | None = None
    attribution: str | None = None
    split: str | None = None
    geometry_hash: str | None = None
    seconds: float = 0.0
    orbits: int = 0
    failed: str | None = None


_KINDS: dict[str, Any] = {name: (float, int) if kind is float else kind for name, kind in get_type_hints(Entry).items()}


@dataclass(frozen=True)
class ListedOrbit:
    """One orbit of a collection."""

    object_id: str
    orbit: str
    """The orbit folder, with the collection it lies in."""
    split: str
    fingerprint: str
    """Changes with what the folder holds, see `fingerprint`."""


@dataclass(frozen=True)
class Listing:
    """The orbits of some collections, and why others, by their folder, are left out."""

    orbits: tuple[ListedOrbit, ...]
    left_out: dict[str, str]


def manifest_paths(collection: Path) -> list[Path]:
    """The manifests of a folder; other files that are called alike (``manifest-old.jsonl``) are none."""
    if not collection.is_dir():
        return []
    return sorted(path for path in collection.iterdir() if _MANIFEST.fullmatch(path.name))


def has_manifest(folder: Path) -> bool:
    """Whether a folder is a collection."""
    return bool(manifest_paths(folder))


def read_manifest(collection: Path) -> dict[str, Entry]:
    """The last line of every object in all manifests of a collection, by object id.

    Raises:
        Mv3dError: if there is no manifest, or a line of one is damaged.
    """
    paths = manifest_paths(collection)
    if not paths:
        raise Mv3dError(
            f"{collection} has no manifest.jsonl; make orbits with: python -m render orbits SOURCE --out {collection}"
        )
    return {entry.object_id: entry for path in paths for entry in read_entries(path)}


def read_entries(path: Path) -> list[Entry]:
    """The lines of one manifest.

    Raises:
        Mv3dError: naming the line, if one is damaged.
    """
    check_readable_file(path)
    entries = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Mv3dError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entries.append(_entry(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise Mv3dError(
                f"{path}, line {number}: no line of a manifest ({error}); delete it, and render again what it named"
            ) from None
    return entries


def collection_of(place: Path) -> Path:
    """The folder of a collection: ``place`` itself, or where the list of some of its objects lies."""
    return place.parent if place.is_file() else place


def list_orbits(places: Sequence[Path], category: str | None = None) -> Listing:
    """All orbits of some collections, or those of one category; nothing but their folders is looked at.

    An object that is on no side of the split is one to train on.

    Args:
        places: folders of collections, or files in them that name some of their objects, an id a line, as ``render
            curate`` writes them (``broad.txt``).
        category: as the manifests have it.

    Raises:
        Mv3dError: if there is none, or a list cannot be read.
    """
    found: list[ListedOrbit] = []
    left_out, categories = {}, set()
    for place in places:
        collection, named = collection_of(place), _named_in(place)
        manifest = read_manifest(collection)
        for object_id in sorted((named or set()) - manifest.keys()):
            left_out[str(collection / object_id)] = f"{place.name} names it, and the manifest does not"
        for object_id, entry in manifest.items():
            categories.add(entry.category)
            if named is not None and object_id not in named:
                continue
            if not entry.orbits or category not in (None, entry.category):
                continue
            folders = orbit_folders(collection / object_id)
            split = entry.split or "train"
            found += [ListedOrbit(object_id, str(path), split, fingerprint(path)) for path in folders]
            if len(folders) < entry.orbits:
                reason = f"the manifest lists {entry.orbits} orbits, {len(folders)} are there; render the rest again"
                left_out[str(collection / object_id)] = reason
    if not found:
        known = f" of category {category}; there are {', '.join(sorted(map(str, categories)))}" if category else ""
        raise Mv3dError(f"{', '.join(map(str, places))}: no rendered orbit in there{known}")
    return Listing(tuple(found), left_out)


def _named_in(place: Path) -> set[str] | None:
    """The objects that a list names, or None for a folder, of which all are meant."""
    if not place.is_file():
        return None
    try:
        return {name for line in place.read_text(encoding="utf-8").splitlines() if (name := line.strip())}
    except (OSError, UnicodeDecodeError) as error:
        raise Mv3dError(f"{place} cannot be read as a list of objects: {error}") from error


def orbit_folders(object_folder: Path) -> list[Path]:
    """The whole orbits of an object, in order."""
    found = (path.parent for path in object_folder.glob("[0-9]*/transforms.json"))
    return sorted((folder for folder in found if folder.name.isdigit()), key=lambda folder: int(folder.name))


def find_collections(root: Path) -> list[Path]:
    """All collections that are above, at or below a folder."""
    found = [folder for folder in root.parents if has_manifest(folder)]
    for where, folders, files in os.walk(root):
        if "transforms.json" in files:
            folders.clear()
        elif any(_MANIFEST.fullmatch(name) for name in files):
            found.append(Path(where))
    return found


def fingerprint(folder: Path) -> str:
    """Sixteen hexadecimal digits of names, sizes and times of an orbit folder's files; other ones when any changes."""
    listing = "\n".join(f"{name} {size} {modified}" for name, size, modified in _files(folder))
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def _files(folder: Path, *, inside: str = "") -> Iterator[tuple[str, int, int]]:
    """Files of a folder and of those in it: name, bytes, time in ns."""
    with os.scandir(folder) as found:
        for file in sorted(found, key=lambda file: file.name):
            path = Path(file.path)  # which says of links in a circle, too, that they are no files
            if path.is_dir():
                if not inside:
                    yield from _files(path, inside=f"{file.name}/")
            elif path.is_file() and file.name not in _FOR_PEOPLE:
                facts = path.stat()
                yield inside + file.name, facts.st_size, facts.st_mtime_ns


def _entry(known: object) -> Entry:
    if not isinstance(known, dict) or "object_id" not in known:
        raise ValueError("it names no object_id")
    given = {field.name: known[field.name] for field in fields(Entry) if field.name in known}
    for name, value in given.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}")
    path = PurePosixPath(given["object_id"])
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"object_id {given['object_id']!r} is no place in its folder")
    return Entry(**given)

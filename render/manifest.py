"""The list of what was rendered: one line of JSON per object."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from render.sources import SourceObject

_SAVE_EVERY_S = 10.0


@dataclass(frozen=True)
class Entry:
    """What became of one object: orbits and split, or the reason there are none."""

    object_id: str
    name: str
    category: str | None
    source: str
    licence: str | None
    attribution: str | None
    split: str | None = None
    geometry_hash: str | None = None
    seconds: float = 0.0
    orbits: int = 0
    failed: str | None = None

    @classmethod
    def of(cls, item: SourceObject, **known) -> Entry:
        """Describe an object and what is known about it."""
        source = item.path.name + (f"/{item.member}" if item.member else "")
        return cls(item.object_id, item.name, item.category, source, item.licence, item.attribution, **known)


class Manifest:
    """Entries of a folder of orbits; the orbit folders are the truth, ``manifest.jsonl`` the digest.

    A run on a shard of the objects writes a file of its own, ``manifest-2-of-8.jsonl``; `load_manifest` reads them all.
    """

    def __init__(self, out: Path, objects: Sequence[SourceObject], name: str = "manifest.jsonl") -> None:
        self._path = out / name
        self._entries = {item.object_id: entry_on_disk(item, orbit_folders(out / item.object_id)) for item in objects}
        before = _read(self._path) if self._path.is_file() else []
        self._others = [entry for entry in before if entry.object_id not in self._entries]
        self._saved_at = 0.0

    def entry(self, item: SourceObject) -> Entry:
        """What is known about an object."""
        return self._entries[item.object_id]

    def entries(self) -> list[Entry]:
        """All entries of this run's objects, in order."""
        return list(self._entries.values())

    def add(self, result: Entry) -> None:
        """Take in one more orbit of an object, or its failure."""
        old = self._entries[result.object_id]
        merged = replace(result, seconds=round(old.seconds + result.seconds, 3), orbits=old.orbits + result.orbits)
        if result.failed is not None and old.orbits:
            merged = replace(old, failed=result.failed)
        self._entries[result.object_id] = merged
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the objects that have been dealt with so far, whole or not at all."""
        done = [e for e in (*self._others, *self._entries.values()) if e.orbits or e.failed is not None]
        with whole_file(self._path) as partial:
            lines = (json.dumps({k: v for k, v in asdict(entry).items() if v is not None}) for entry in done)
            partial.write_text("".join(line + "\n" for line in lines))
        self._saved_at = time.monotonic()


def has_manifest(out: Path) -> bool:
    """Whether a folder is one of rendered orbits."""
    return any(out.glob("manifest*.jsonl"))


def load_manifest(out: Path) -> list[Entry]:
    """Read all manifests of a folder of orbits.

    Raises:
        Mv3dError: if there is none, or a line of one is damaged.
    """
    if not has_manifest(out):
        raise Mv3dError(f"{out} has no manifest.jsonl; render something there first")
    entries = {entry.object_id: entry for path in sorted(out.glob("manifest*.jsonl")) for entry in _read(path)}
    return list(entries.values())


def _read(path: Path) -> list[Entry]:
    absent = {"category": None, "licence": None, "attribution": None}
    try:
        return [Entry(**(absent | json.loads(line))) for line in path.read_text().splitlines()]
    except (ValueError, TypeError) as error:
        raise Mv3dError(f"{path} is no manifest of this renderer: {error}") from None


def entry_on_disk(item: SourceObject, folders: Sequence[Path]) -> Entry:
    """What the orbits in ``folders`` tell about an object.

    Raises:
        Mv3dError: if one was not written by this renderer.
    """
    entry = Entry.of(item)
    for path in (folder / "transforms.json" for folder in folders):
        try:
            facts = json.loads(path.read_text())["mv3d"]
            split, geometry_hash = facts["extra"]["split"], facts["extra"]["geometry_hash"]
            seconds = entry.seconds + sum(facts["seconds"].values())
        except (ValueError, KeyError, TypeError):
            raise Mv3dError(f"{path} was not written by this renderer; choose another --out") from None
        entry = replace(
            entry, split=split, geometry_hash=geometry_hash, seconds=round(seconds, 3), orbits=entry.orbits + 1
        )
    return entry


def orbit_folders(object_folder: Path) -> list[Path]:
    """The whole orbits of an object, in order."""
    found = (path.parent for path in object_folder.glob("[0-9]*/transforms.json"))
    return sorted((folder for folder in found if folder.name.isdigit()), key=lambda folder: int(folder.name))

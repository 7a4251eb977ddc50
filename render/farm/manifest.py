"""The list of what was rendered: one line of JSON per object."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mv3d.dataset import Entry, has_manifest, orbit_folders, read_entries, read_manifest
from mv3d.errors import Mv3dError
from mv3d.files import read_json, whole_file
from render.sources import SourceObject

_SAVE_EVERY_S = 10.0


def entry_of(item: SourceObject, **known) -> Entry:
    """Describe an object and what is known about it."""
    source = item.path.name + (f"/{item.member}" if item.member else "")
    return Entry(item.object_id, item.name, item.category, source, item.licence, item.attribution, **known)


class Manifest:
    """Entries of a folder of orbits; the orbit folders are the truth, ``manifest.jsonl`` the digest.

    A run on a shard of the objects writes a file of its own, ``manifest-2-of-8.jsonl``; `read_manifest` reads them all.
    A shape keeps the side of the split that any of them tells, unless the user gives it another one.
    """

    def __init__(self, out: Path, objects: Sequence[SourceObject], name: str = "manifest.jsonl") -> None:
        self._path = out / name
        self._entries = {item.object_id: entry_on_disk(item, orbit_folders(out / item.object_id)) for item in objects}
        self._given = {item.object_id: item.split for item in objects}
        self._recorded = read_manifest(out) if has_manifest(out) else {}
        self._entries = {object_id: self._on_its_side(entry) for object_id, entry in self._entries.items()}
        before = read_entries(self._path) if self._path.is_file() else []
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
        self._entries[result.object_id] = self._on_its_side(merged)
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self.save()

    def _on_its_side(self, entry: Entry) -> Entry:
        given, recorded = self._given[entry.object_id], self._recorded.get(entry.object_id)
        if given is None and recorded is not None and recorded.geometry_hash == entry.geometry_hash:
            given = recorded.split
        return entry if entry.split is None or given is None else replace(entry, split=given)

    def save(self) -> None:
        """Write the objects that have been dealt with so far, whole or not at all."""
        done = [e for e in (*self._others, *self._entries.values()) if e.orbits or e.failed is not None]
        with whole_file(self._path) as partial:
            lines = (json.dumps({k: v for k, v in asdict(entry).items() if v is not None}) for entry in done)
            partial.write_text("".join(line + "\n" for line in lines))
        self._saved_at = time.monotonic()


def entry_on_disk(item: SourceObject, folders: Sequence[Path]) -> Entry:
    """What the orbits in ``folders`` tell about an object.

    Raises:
        Mv3dError: if one was not written by this renderer.
    """
    entry = entry_of(item)
    for path in (folder / "transforms.json" for folder in folders):
        try:
            facts = read_json(path)["mv3d"]
            split, geometry_hash = facts["extra"]["split"], facts["extra"]["geometry_hash"]
            seconds = entry.seconds + sum(facts["seconds"].values())
        except (OSError, ValueError, KeyError, TypeError):
            raise Mv3dError(f"{path} was not written by this renderer; choose another folder", argument="out") from None
        entry = replace(
            entry, split=split, geometry_hash=geometry_hash, seconds=round(seconds, 3), orbits=entry.orbits + 1
        )
    return entry

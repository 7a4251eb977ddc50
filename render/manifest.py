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
    """Entries of a folder of orbits; the orbit folders are the truth, ``manifest.jsonl`` the digest."""

    def __init__(self, out: Path, objects: Sequence[SourceObject]) -> None:
        self._path = out / "manifest.jsonl"
        self._entries = {item.object_id: _entry_on_disk(out, item) for item in objects}
        self._others = (
            [e for e in load_manifest(out) if e.object_id not in self._entries] if self._path.is_file() else []
        )
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


def load_manifest(out: Path) -> list[Entry]:
    """Read ``manifest.jsonl`` of a folder of orbits."""
    text = (out / "manifest.jsonl").read_text()
    return [
        Entry(**({"category": None, "licence": None, "attribution": None} | json.loads(line)))
        for line in text.splitlines()
    ]


def _entry_on_disk(out: Path, item: SourceObject) -> Entry:
    entry = Entry.of(item)
    for path in sorted((out / item.object_id).glob("[0-9]*/transforms.json")):
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

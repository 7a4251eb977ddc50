"""Finding orbit folders, and those of one split of a rendered collection."""

from __future__ import annotations

import json
from pathlib import Path

from mv3d.errors import Mv3dError

_ORBIT_FILE = "transforms.json"
_MANIFEST = "manifest.jsonl"


def is_orbit(folder: Path) -> bool:
    """Whether the folder itself is an orbit folder (not only a folder of them).

    Raises:
        Mv3dError: if there is no such folder.
    """
    if not folder.is_dir():
        raise Mv3dError(f"{folder} is no folder; give an orbit folder or a folder of them")
    return (folder / _ORBIT_FILE).is_file()


def find_orbits(root: Path, split: str | None = None) -> dict[str, Path]:
    """All orbit folders below ``root``, by relative path in sorted order; half-written ones are left out.

    With ``split``, and where ``root`` has a renderer's manifest, only the orbits (``<object_id>/<k>``) of that side.

    Raises:
        Mv3dError: if there is no such folder or no such orbit in it.
    """
    is_orbit(root)
    names = (path.parent.relative_to(root) for path in root.rglob(_ORBIT_FILE))
    orbits = {name.as_posix(): root / name for name in sorted(names) if not _is_hidden(name)}
    if not orbits:
        raise Mv3dError(f"{root} holds no orbit folders (no {_ORBIT_FILE} below it); render or predict some first")
    if split is not None and (root / _MANIFEST).is_file():
        side = _load_splits(root / _MANIFEST)
        orbits = {name: path for name, path in orbits.items() if side.get(object_of(name)) == split}
        if not orbits:
            raise Mv3dError(f"{root / _MANIFEST} lists no rendered object of the {split} split; render more objects")
    return orbits


def object_of(name: str) -> str:
    """The object that an orbit shows: the path above its number, or the path itself where there is no number."""
    above, _, last = name.rpartition("/")
    return above if above and last.isdigit() else name


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _load_splits(manifest: Path) -> dict[str, str | None]:
    try:
        entries = [json.loads(line) for line in manifest.read_text().splitlines()]
        return {entry["object_id"]: entry.get("split") for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Mv3dError(f"{manifest} cannot be read as a manifest ({error!r}); render it again") from error

"""What the user says of a source's objects: which of them, their side of the split, their licence, and grey ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from mv3d.dataset import SPLITS
from mv3d.errors import Mv3dError
from render.sources import SourceObject
from render.sources.meshes import MeshFile


def choose(objects: Sequence[SourceObject], only: Sequence[str], limit: int | None) -> list[SourceObject]:
    """Those that any of the names is of, or all without names, and of these the first ``limit``.

    A name is an object id, a pattern of them (``chairs/*``), or a file with names, one a line.

    Raises:
        Mv3dError: if a name is of no object, or the limit is not positive.
    """
    if limit is not None and limit < 1:
        raise Mv3dError(f"{limit} objects: give a positive number", argument="limit")
    names = [name for word in only for name in _names_of(word)]
    chosen: set[str] = set()
    for name in names:
        chosen |= _named(objects, name, "only")
    return [item for item in objects if not names or item.object_id in chosen][:limit]


def on_sides(objects: Sequence[SourceObject], path: Path) -> list[SourceObject]:
    """The objects, with the sides that a file gives them; the others' are drawn by their shape.

    Each line is an object id or a pattern of them, and ``train``, ``val`` or ``test``; of several, the first counts.

    Raises:
        Mv3dError: if the file cannot be read, or a line is of no object or no side.
    """
    sides: dict[str, str] = {}
    for line in _lines(path, "split"):
        name, _, side = line.rpartition(" ")
        if side not in SPLITS or not name:
            raise Mv3dError(f"{path}: {line!r} is no object id and one of {', '.join(SPLITS)}", argument="split")
        for object_id in _named(objects, name.strip(), "split"):
            sides.setdefault(object_id, side)
    return [replace(item, split=sides.get(item.object_id)) for item in objects]


def licensed(objects: Sequence[SourceObject], licence: str) -> list[SourceObject]:
    """The objects, with a licence where their source tells none."""
    return [item if item.licence is not None else replace(item, licence=licence) for item in objects]


def in_grey(objects: Sequence[SourceObject]) -> list[SourceObject]:
    """The objects, of which mesh files without any colour are to be grey and not left out."""
    return [replace(item, grey=True) if isinstance(item, MeshFile) else item for item in objects]


def _names_of(word: str) -> list[str]:
    return _lines(Path(word), "only") if Path(word).is_file() else [word]


def _lines(path: Path, argument: str) -> list[str]:
    try:
        lines = (" ".join(line.split()) for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise Mv3dError(f"{path} cannot be read: {error}", argument=argument) from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise Mv3dError(f"{path} has no line; give one for each object or pattern", argument=argument)
    return found


def _named(objects: Sequence[SourceObject], name: str, argument: str) -> set[str]:
    ids = [item.object_id for item in objects]
    found = {object_id for object_id in ids if object_id == name or fnmatchcase(object_id, name)}
    if not found:
        close = get_close_matches(name, ids, 1)
        hint = f"; {close[0]}?" if close else "; python -m render list SOURCE shows all"
        raise Mv3dError(f"{name} is none of the {len(ids)} objects{hint}", argument=argument)
    return found

"""Objaverse's index in the layout of ``~/.objaverse``, as its own package keeps it.

``object-paths.json.gz`` maps uids to ``glbs/000-023/<uid>.glb``; ``metadata/000-023.json.gz`` holds the annotations of
that folder; ``lvis-annotations.json.gz`` maps LVIS categories to uids. What is missing is downloaded, see `hub`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mv3d.errors import Mv3dError
from render.sources.hub import read_json


class Index:
    """What is known of the objects without loading them.

    Raises:
        Mv3dError: here and in all methods, if a file of the index is damaged or cannot be had.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.paths: dict[str, str] = read_json(root, "object-paths.json.gz")
        """The objects' files inside the root, by uid."""

    def categories(self, names: Iterable[str]) -> dict[str, str]:
        """The uids in LVIS categories, each with its category's name as the index writes it.

        Raises:
            Mv3dError: if there is no such category.
        """
        lvis: dict[str, list[str]] = read_json(self._root, "lvis-annotations.json.gz")
        named = {name.lower(): name for name in lvis}
        found: dict[str, str] = {}
        for name in names:
            if name not in named:
                raise Mv3dError(f"Objaverse has no LVIS category {name}; there are {', '.join(sorted(lvis)[:8])} ...")
            found |= dict.fromkeys(lvis[named[name]], named[name])
        return found

    def annotations(self, uids: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The uids with what their authors say of them, in the index's order; each of its files is read once."""
        folders: dict[str, list[str]] = {}
        for uid in uids:
            folders.setdefault(self.paths[uid].split("/")[1], []).append(uid)
        for folder in sorted(folders):
            known = read_json(self._root, f"metadata/{folder}.json.gz")
            yield from ((uid, known[uid]) for uid in sorted(folders[folder]) if uid in known)

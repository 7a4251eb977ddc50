"""Objaverse through its own package, ``objaverse``: its functions, its files, where it keeps them.

Below ``~/.objaverse/hf-objaverse-v1``, ``object-paths.json.gz`` maps uids to ``glbs/000-023/<uid>.glb``,
``metadata/000-023.json.gz`` holds the annotations of that folder, and ``lvis-annotations.json.gz`` maps LVIS categories
to uids; what is missing is downloaded. The package tries once, waits without end, writes its index in place, and prints
to stdout; what it raises is urllib's or gzip's. That is mended here.
"""

from __future__ import annotations

import socket
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any

from mv3d.errors import Mv3dError

INSTALL_COMMAND = "pip install --no-deps objaverse==0.1.7"

_TRIES = 3
_PATIENCE_S = 60.0  # without a byte
_DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zlib.error, HTTPException)


class Objaverse:
    """The package, on one folder.

    Raises:
        Mv3dError: here if it is not installed, and in all methods if a file is damaged or cannot be had.
    """

    def __init__(self, root: Path | None = None) -> None:
        """Use another folder than ``~/.objaverse/hf-objaverse-v1``."""
        try:
            self._package: Any = import_module("objaverse")
        except ImportError:
            raise Mv3dError(f"Objaverse is read by its own package: {INSTALL_COMMAND}") from None
        self.root = (root or Path(self._package.BASE_PATH) / "hf-objaverse-v1").expanduser().resolve()

    def paths(self) -> dict[str, Path]:
        """The objects' files, by uid, whether they are there or not."""

        def read() -> dict[str, Path]:
            return {uid: self.root / name for uid, name in self._package._load_object_paths().items()}

        return self._call("object-paths.json.gz", read)

    def categories(self, names: Iterable[str]) -> dict[str, str]:
        """The uids in LVIS categories, each with its category's name as the index writes it.

        Raises:
            Mv3dError: if there is no such category.
        """

        def read() -> dict[str, tuple[str, list[str]]]:
            return {name.lower(): (name, uids) for name, uids in self._package.load_lvis_annotations().items()}

        lvis = self._call("lvis-annotations.json.gz", read)
        found: dict[str, str] = {}
        for asked in names:
            if asked not in lvis:
                some = ", ".join(sorted(name for name, _ in lvis.values())[:8])
                raise Mv3dError(f"Objaverse has no LVIS category {asked}; there are {some} ...")
            name, uids = lvis[asked]
            found |= dict.fromkeys(uids, name)
        return found

    def annotations(self, paths: dict[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The uids with what their authors say of them, sorted by path, one folder in memory at a time."""
        folders: dict[str, list[str]] = {}
        for uid in sorted(paths, key=lambda uid: paths[uid]):
            folders.setdefault(paths[uid].parent.name, []).append(uid)
        for folder, uids in folders.items():
            known = self._call(f"metadata/{folder}.json.gz", self._package.load_annotations, uids)
            yield from ((uid, known[uid]) for uid in uids if uid in known)

    def fetch(self, uid: str, path: Path) -> None:
        """Download an object's file if it is not there.

        Raises:
            Mv3dError: if it cannot be had, or would be outside the folder.
        """
        if not path.resolve().is_relative_to(self.root):
            raise Mv3dError(f"Objaverse's index names {path}, which is outside its folder")
        if not path.is_file():
            self._call(str(path.relative_to(self.root)), self._package.load_objects, [uid])

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what reads a file of the folder, or downloads it first."""
        path, problem = self.root / name, None
        for _ in range(_TRIES):
            had = path.is_file()
            try:
                with self._on_its_folder():
                    return function(*arguments)
            except BaseException as error:
                if not had:
                    path.unlink(missing_ok=True)  # a part of it
                if not isinstance(error, _DAMAGE):
                    raise
                problem = " ".join(str(error).split())[:200]
            if had:
                raise Mv3dError(f"{path} is damaged ({problem}); remove it, and it is downloaded again")
        raise Mv3dError(f"{name} of Objaverse is not in {self.root} and cannot be downloaded: {problem}")

    @contextmanager
    def _on_its_folder(self) -> Iterator[None]:
        patience, folder = socket.getdefaulttimeout(), self._package._VERSIONED_PATH
        socket.setdefaulttimeout(_PATIENCE_S)
        self._package._VERSIONED_PATH = str(self.root)
        try:
            with redirect_stdout(sys.stderr):  # stdout is for what the command makes
                yield
        finally:
            socket.setdefaulttimeout(patience)
            self._package._VERSIONED_PATH = folder

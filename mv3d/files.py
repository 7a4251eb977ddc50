"""Writing so that a killed process never leaves something that looks whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mv3d.errors import Mv3dError


@contextmanager
def whole_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; it takes ``path``'s place when the block ends without an error."""
    check_free(path, overwrite=overwrite)
    if path.is_dir():
        raise Mv3dError(f"{path} is a folder; name a file")
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path, "partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place when the block ends without an error."""
    check_free(path, overwrite=overwrite)
    if path.exists() and not path.is_dir():
        raise Mv3dError(f"{path} is a file; name a folder")
    path = path.resolve()  # gives "." a name to stand beside
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, replaced = _beside(path, "partial"), _beside(path, "replaced")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rename(replaced)  # first aside, then away: at no time is a half-deleted folder at the name
        partial.rename(path)
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise `Mv3dError` if ``path`` exists and must not be replaced, or if nothing can be written there."""
    if path.exists() and not overwrite:
        raise Mv3dError(f"{path} exists already; choose another name or add --overwrite")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise Mv3dError(f"cannot write {path}: {above} is no folder with write permission; choose another place")


def _beside(path: Path, role: str) -> Path:
    return path.with_name(f".{role}-{os.getpid()}-{path.name}")  # keeps the suffix, which writers go by

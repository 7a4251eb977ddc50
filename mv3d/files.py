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
    _make_folder(path.parent)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")  # keeps the suffix, which writers go by
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place when the block ends without an error."""
    check_free(path, overwrite=overwrite)
    _make_folder(path.parent)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise `Mv3dError` if ``path`` exists and must not be replaced."""
    if path.exists() and not overwrite:
        raise Mv3dError(f"{path} exists already; choose another name or add --overwrite")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mv3dError(f"cannot make the folder {path}: {error.strerror}") from error

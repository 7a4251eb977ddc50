"""Writing so that a killed process never leaves something that looks whole."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
    """Yield an empty folder beside ``path`` that takes its place when the block ends without an error.

    Raises:
        Mv3dError: as `check_free`; at the end of the block too, if another process has written ``path`` meanwhile and
            ``overwrite`` is not set. With it, the last one to end stays, whole.
    """
    check_free(path, overwrite=overwrite)
    with suppress(OSError):  # asked once: another process may be replacing it
        if not stat.S_ISDIR(path.stat().st_mode):
            raise Mv3dError(f"{path} is a file; name a folder")
    path = path.resolve()  # gives "." a name to stand beside
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, replaced = _beside(path, "partial"), _beside(path, "replaced")
    partial.mkdir()
    try:
        yield partial
        while not _put(partial, path):
            if not overwrite:
                raise Mv3dError(
                    f"another process has written {path} meanwhile; choose another name or overwrite it",
                    argument="overwrite",
                )
            shutil.rmtree(replaced, ignore_errors=True)
            with suppress(FileNotFoundError):  # another process was quicker
                path.rename(replaced)  # first aside, then away: at no time is a half-deleted folder at the name
    except BaseException:
        if replaced.exists():
            _put(replaced, path)  # unless another process has put something there
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise `Mv3dError` if ``path`` exists and must not be replaced, or if nothing can be written there."""
    if path.exists() and not overwrite:
        raise Mv3dError(f"{path} exists already; choose another name or overwrite it", argument="overwrite")
    real = Path(os.path.realpath(path))  # follows every link that leads somewhere
    if any(place.is_symlink() for place in (real, *real.parents)):
        raise Mv3dError(f"cannot write {path}: its symbolic links lead in a circle; choose another name")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise Mv3dError(f"cannot write {path}: {above} is no folder with write permission; choose another place")


def check_readable_file(path: Path) -> None:
    """Raise `Mv3dError` if ``path`` is a pipe, a socket or a device: reading it might never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise Mv3dError(f"{path} is a pipe or a device; save what it gives as a file, and name that")


def read_json(path: Path) -> Any:
    """What a JSON file of ours holds, which may have been damaged.

    Raises:
        OSError: if it is missing or cannot be read.
        ValueError: if it is no text, no JSON, nested without end, or a pipe.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("it is a pipe or a device")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("objects or lists are nested too deeply") from None


def _put(partial: Path, path: Path) -> bool:
    """Rename a folder, or tell that something stands in its way."""
    try:
        partial.rename(path)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return False
    return True


def _beside(path: Path, role: str) -> Path:
    """A name that no other writer has, on this machine or another; it keeps the suffix, which writers go by."""
    return path.with_name(f".{role}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")

"""The folder of a run: held by one process at a time, or one group of them, and free of what killed ones left."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mv3d.errors import Mv3dError
from mv3d.files import check_free

_LOCK = ".lock"
_BESIDE = re.compile(r"\.(?:partial|replaced)-\d+-(?:[0-9a-f]{8}-)?(.+)")  # as mv3d.files names what it writes


@contextmanager
def held_folder(run: Path) -> Iterator[None]:
    """Make the folder and hold it until the block ends, or until the process does, however it ends.

    Raises:
        Mv3dError: if another process holds it, or if nothing can be written there.
    """
    check_free(run, overwrite=True)
    if run.exists() and not run.is_dir():
        raise Mv3dError(f"{run} is a file; name a folder for the run")
    lock = FileLock(run / _LOCK)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise Mv3dError(f"{run} is another process's that trains now; wait for its end, or give another run") from None
    except OSError as error:
        raise Mv3dError(f"{run} cannot be written to: {error.strerror}; name another folder for the run") from error
    try:
        _clear(run)
        yield
    finally:
        lock.release()


def _clear(run: Path) -> None:
    """Delete what was half-written, and put back what was aside when its successor was to take its place."""
    for pattern in ("", "*/", "*/*/"):
        for path in run.glob(f"{pattern}.replaced-*"):
            match = _BESIDE.fullmatch(path.name)
            if match and not path.with_name(match[1]).exists():
                path.rename(path.with_name(match[1]))
            else:
                _delete(path)
        for path in run.glob(f"{pattern}.partial-*"):
            _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()

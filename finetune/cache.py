"""Arrays computed once, on demand, and kept on disk: latents of frames and of coarse views."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class DiskCache:
    """Rows of one half-precision array; a row is made at its first use. Killed at any moment, no row is half-written.

    ``folder`` should name what the rows depend on, see `weights_digest`.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._rows = _open(folder / "rows.npy", np.float16, shape)
        self._done = _open(folder / "done.npy", np.uint8, shape[:1])

    def get(self, row: int, make: Callable[[], Tensor]) -> Tensor:
        """Row number ``row``, as ``make`` gives it, rounded to half precision."""
        if not self._done[row]:
            self._rows[row] = make().float().numpy()
            self._rows.flush()  # the row must be on disk before it is called done
            self._done[row] = 1
            self._done.flush()
        return torch.from_numpy(self._rows[row].astype(np.float32))


def weights_digest(*modules: nn.Module) -> str:
    """Eight hexadecimal digits that change when any weight does."""
    digest = hashlib.sha256()
    for module in modules:
        for key, value in sorted(module.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:8]


def _open(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    # A new file is sparse and reads as zeros, so creating it cannot be caught half-done beyond its header. Of several
    # processes that do so at once the first one's stays: linking, unlike renaming, replaces nothing.
    if not path.exists():
        partial = path.with_suffix(f".partial-{os.getpid()}")
        np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape).flush()
        with suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
    return np.lib.format.open_memmap(path, mode="r+")

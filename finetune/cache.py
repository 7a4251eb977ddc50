"""Arrays computed once, on demand, and kept on disk: latents of frames and of coarse views."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class DiskCache:
    """Rows of one half-precision array; a row is made at its first use. Killed at any moment, no row is half-written.

    ``folder`` should name what the rows depend on, see `weights_digest`.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        if not folder.exists():
            _create(folder, shape)
        self._rows, self._done = (
            np.lib.format.open_memmap(folder / name, mode="r+") for name in ("rows.npy", "done.npy")
        )

    def get(self, row: int, make: Callable[[], Tensor]) -> Tensor:
        """Row number ``row``, as ``make`` gives it, rounded to half precision."""
        if not self._done[row]:
            self._rows[row] = make().float().cpu().numpy()
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


def _create(folder: Path, shape: tuple[int, ...]) -> None:
    """Make an empty cache; of several processes that do so at once the first one's stays."""
    partial = folder.with_name(f".partial-{os.getpid()}-{folder.name}")
    partial.mkdir(parents=True, exist_ok=True)
    for name, dtype, size in (("rows.npy", np.float16, shape), ("done.npy", np.uint8, shape[:1])):
        np.lib.format.open_memmap(partial / name, mode="w+", dtype=dtype, shape=size).flush()  # sparse, reads as zeros
    try:
        partial.rename(folder)  # replaces no folder that has files
    except OSError:
        shutil.rmtree(partial)
        if not folder.is_dir():
            raise

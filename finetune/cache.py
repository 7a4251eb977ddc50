"""Arrays computed once, on demand, and kept on disk: latents of frames and of coarse views."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mv3d.errors import Mv3dError
from mv3d.files import check_readable_file

_DIGEST_BYTES = 8


class DiskCache:
    """Rows of one half-precision array, each made at its first use.

    Beside each row lies a digest of its bytes and of its key, which tells what it was made of. A row of another key, a
    changed one, and one that was half-written when a process was killed are made again. ``folder`` should name what all
    rows depend on, see `weights_digest`.
    """

    def __init__(self, folder: Path, keys: Sequence[str], shape: tuple[int, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._keys, self._shape = keys, shape
        self._rows, self._digests = folder / "rows.bin", folder / "digests.bin"
        for path in (self._rows, self._digests):
            check_readable_file(path)
            path.touch()

    def get(self, row: int, make: Callable[[], Tensor]) -> Tensor:
        """Row number ``row``, as ``make`` gives it, rounded to half precision.

        Raises:
            Mv3dError: if it cannot be written.
        """
        size = 2 * prod(self._shape)
        data = _read(self._rows, row * size, size)
        if _read(self._digests, row * _DIGEST_BYTES, _DIGEST_BYTES) != self._digest(row, data):
            data = make().float().cpu().numpy().astype(np.float16).tobytes()
            assert len(data) == size, "a row of another shape"
            try:
                _write(self._rows, row * size, data)
                _write(self._digests, row * _DIGEST_BYTES, self._digest(row, data))
            except OSError as error:
                message = f"{self._rows} cannot be written: {error.strerror}; free space and run the same command again"
                raise Mv3dError(message) from error
        return torch.from_numpy(np.frombuffer(data, np.float16).reshape(self._shape).astype(np.float32))

    def _digest(self, row: int, data: bytes) -> bytes:
        return hashlib.blake2b(f"{self._keys[row]}\n".encode() + data, digest_size=_DIGEST_BYTES).digest()


def weights_digest(*modules: nn.Module) -> str:
    """Eight hexadecimal digits that change when any weight does."""
    digest = hashlib.sha256()
    for module in modules:
        for key, value in sorted(module.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:8]


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _write(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)

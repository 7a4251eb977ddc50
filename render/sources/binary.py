"""A cursor over a binary file, for formats that are a few counts and arrays."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from render.errors import Unusable


class Cursor:
    """Reads little-endian values one after the other; a file that ends early is `Unusable`."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._what, self._at = data, what, 0

    def skip(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        self._at += count
        if count < 0 or self._at > len(self._data):
            raise Unusable(f"{self._what} ends early")
        return self._data[self._at - count : self._at]

    def u8(self) -> int:
        """An unsigned byte."""
        return self.skip(1)[0]

    def u16(self) -> int:
        """An unsigned 16-bit number."""
        return struct.unpack("<H", self.skip(2))[0]

    def u32(self) -> int:
        """An unsigned 32-bit number."""
        return struct.unpack("<I", self.skip(4))[0]

    def array(self, dtype: np.typing.DTypeLike, *shape: int) -> NDArray:
        """An array of packed values."""
        kind = np.dtype(dtype).newbyteorder("<")
        count = int(np.prod(shape, dtype=object))
        return np.frombuffer(self.skip(count * kind.itemsize), kind).reshape(shape)

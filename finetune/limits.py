"""Which values a config may hold: limits that stand with a field's type and are checked when the file is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from mv3d.errors import Mv3dError

MAX_LEVELS = 6  # of a UNet; SVD has 4


@dataclass(frozen=True)
class Within:
    """From ``low`` to ``high``, both allowed unless it must be ``above`` the low one; perhaps multiples of a number."""

    low: float
    high: float = math.inf
    above: bool = False
    multiple_of: int = 1

    def check(self, value: float, where: str) -> None:
        """Raise `Mv3dError`, naming ``where`` the value stands and what it may be, if it is out of bounds."""
        fits = (self.low < value if self.above else self.low <= value) and value <= self.high
        if not fits or (self.multiple_of > 1 and value % self.multiple_of):
            raise Mv3dError(f"{where} is {_format(value)}; give {self}")

    def __str__(self) -> str:
        kind = f"a multiple of {self.multiple_of} " if self.multiple_of > 1 else ""
        begin = f"above {_format(self.low)}" if self.above else f"from {_format(self.low)}"
        return f"{kind}{begin}" + (f" to {_format(self.high)}" if self.high < math.inf else "")


def _format(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


Count = Annotated[int, Within(1, 2**20)]
"""Of things of which at least one is needed; none is wanted a million times."""
CountOrNone = Annotated[int, Within(0, 2**20)]
Steps = Annotated[int, Within(0, 10**9)]
Period = Annotated[int, Within(1, 10**9)]
"""In steps."""
BatchSize = Annotated[int, Within(1, 2**16)]
Seed = Annotated[int, Within(0, 2**32 - 1)]
NumViews = Annotated[int, Within(1, 200)]
SamplingSteps = Annotated[int, Within(1, 1000)]
LayersPerBlock = Annotated[int, Within(1, 16)]

Positive = Annotated[float, Within(0, above=True)]
Weight = Annotated[float, Within(0)]
"""Of one part of a loss beside the others."""
Share = Annotated[float, Within(0, 1)]
LogSigma = Annotated[float, Within(-20, 20)]
"""A mean of ln sigma; beyond, e to its power says nothing."""
Spread = Annotated[float, Within(0, 10)]
"""A standard deviation of ln sigma."""

ResolutionPx = Annotated[int, Within(32, 4096, multiple_of=8)]
"""Latents are 8 times smaller than frames, and LPIPS sees none smaller than 32 pixels."""
UNetWidth = Annotated[int, Within(32, 4096, multiple_of=32)]
"""Channels of a level of the video UNet, whose norms have 32 groups."""
SmallWidth = Annotated[int, Within(8, 4096, multiple_of=8)]
"""Channels of a level of the mini model's other networks, whose norms have 8 groups."""
EmbeddingWidth = Annotated[int, Within(2, 8192, multiple_of=2)]
"""Sine and cosine come in pairs."""


def check_heads(channels: tuple[int, ...], heads: tuple[int, ...], where: str) -> None:
    """Raise `Mv3dError` unless every level of a UNet has a number of attention heads that divides its channels."""
    if len(channels) != len(heads):
        raise Mv3dError(f"{where}: {len(channels)} channels and {len(heads)} heads; give one of each per level")
    if len(channels) > MAX_LEVELS:
        raise Mv3dError(f"{where}: {len(channels)} levels of channels; give at most {MAX_LEVELS}")
    for width, count in zip(channels, heads, strict=True):
        if width % count:
            raise Mv3dError(f"{where}: {width} channels cannot be divided among {count} heads")


def check_sigmas(sigma_min: float, sigma_max: float, where: str) -> None:
    """Raise `Mv3dError` unless there are noise levels between the two."""
    if sigma_min >= sigma_max:
        raise Mv3dError(f"{where}: sigma_min {sigma_min:g} is not below sigma_max {sigma_max:g}")

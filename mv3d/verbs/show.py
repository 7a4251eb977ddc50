"""What all verbs print alike."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


def print_error(error: Exception, *, verbose: bool) -> None:
    """Print an error as one line on stderr; ``verbose`` shows its traceback before."""
    if verbose:
        traceback.print_exception(error)
    print("mv3d:", " ".join(str(error).split()), file=sys.stderr)


class StepBar:
    """A progress bar on stderr where somebody watches: a terminal, or a program that says so (MV3D_PROGRESS=1)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: tqdm | None = None

    def update(self, done: int, total: int) -> None:
        """Show how many steps are done."""
        from tqdm import tqdm

        if self._bar is None:
            disable = False if os.environ.get("MV3D_PROGRESS") == "1" else None  # None: where it is no terminal
            self._bar = tqdm(total=total, desc=self._name, unit="step", disable=disable, leave=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

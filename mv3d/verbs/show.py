"""What all verbs print alike."""

from __future__ import annotations

import sys
import traceback


def print_error(error: Exception, *, verbose: bool) -> None:
    """Print an error as one line on stderr; ``verbose`` shows its traceback before."""
    if verbose:
        traceback.print_exception(error)
    print("mv3d:", " ".join(str(error).split()), file=sys.stderr)

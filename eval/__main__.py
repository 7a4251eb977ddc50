"""The command line of the room: ``python -m eval weights``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mv3d.errors import Mv3dError


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return the exit code; a user's mistake is one line and code 2."""
    parser = argparse.ArgumentParser(prog="python -m eval", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    weights = verbs.add_parser("weights", help="fetch and convert the weights of LPIPS, once")
    weights.add_argument("--cache", type=Path, help="folder to keep them in (default: $MV3D_CACHE or ~/.cache/mv3d)")
    given = parser.parse_args(arguments)
    try:
        from eval.weights import fetch_lpips

        for path in fetch_lpips(given.cache):
            print(path)
    except Mv3dError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

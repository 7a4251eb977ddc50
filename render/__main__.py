"""``python -m render``: turn objects into posed orbits, and look after what came out."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

from tyro.conf import subcommand

from mv3d.command_line import run_program
from render.verbs.collections import CurateVerb, PackVerb, SheetVerb
from render.verbs.objects import ListVerb
from render.verbs.orbits import DepthVerb, OrbitsVerb

Verb = (
    Annotated[ListVerb, subcommand("list")]
    | Annotated[OrbitsVerb, subcommand("orbits")]
    | Annotated[DepthVerb, subcommand("depth")]
    | Annotated[SheetVerb, subcommand("sheet")]
    | Annotated[PackVerb, subcommand("pack")]
    | Annotated[CurateVerb, subcommand("curate")]
)


def main(arguments: list[str] | None = None) -> int:
    """Turn objects into posed orbits, and look after what came out."""
    stopped = "stopped; the same command goes on from here"
    return run_program("render", Verb, main.__doc__, arguments, prog="python -m render", stopped=stopped)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())

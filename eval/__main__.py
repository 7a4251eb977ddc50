"""``python -m eval``: scores of views and meshes against the truth."""

from __future__ import annotations

import sys
from typing import Annotated

from tyro.conf import subcommand

from eval.verbs.given import GeometryVerb, ScoreVerb
from eval.verbs.results import GalleryVerb, ProtocolsVerb, TableVerb, WeightsVerb
from eval.verbs.run import RunVerb
from mv3d.command_line import run_program

Verb = (
    Annotated[WeightsVerb, subcommand("weights")]
    | Annotated[ProtocolsVerb, subcommand("protocols")]
    | Annotated[RunVerb, subcommand("run")]
    | Annotated[ScoreVerb, subcommand("score")]
    | Annotated[TableVerb, subcommand("table")]
    | Annotated[GalleryVerb, subcommand("gallery")]
    | Annotated[GeometryVerb, subcommand("geometry")]
)


def main(arguments: list[str] | None = None) -> int:
    """Scores of views and meshes against the truth."""
    stopped = "stopped; the same command goes on from here"
    return run_program("eval", Verb, main.__doc__, arguments, prog="python -m eval", stopped=stopped)


if __name__ == "__main__":
    sys.exit(main())

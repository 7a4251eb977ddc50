"""The command line ``mv3d``: parsing, calling and printing; every verb's work is a function elsewhere."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr
from typing import Annotated

import tyro

from mv3d.errors import Mv3dError
from mv3d.verbs.export import Export
from mv3d.verbs.lift import Lift
from mv3d.verbs.orbit import Orbit
from mv3d.verbs.show import print_error

Verb = (
    Annotated[Orbit, tyro.conf.subcommand("orbit")]
    | Annotated[Lift, tyro.conf.subcommand("lift")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)


def main(arguments: list[str] | None = None) -> int:
    """One picture of an object in, a consistent turntable and a textured mesh out."""
    verbose = False
    try:
        verb = _parse(arguments)
        verbose = verb.verbose
        return verb.run()
    except (Mv3dError, OSError) as error:
        print_error(error, verbose=verbose)
        return 2
    except KeyboardInterrupt:
        print("mv3d: stopped", file=sys.stderr)
        return 130


def _parse(arguments: list[str] | None) -> Orbit | Lift | Export:
    shown = io.StringIO()
    try:
        with redirect_stderr(shown):
            return tyro.cli(
                Verb,  # pyright: ignore[reportArgumentType]  (a union, which tyro makes subcommands of)
                prog="mv3d",
                description=main.__doc__,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as stop:
        if not stop.code:  # it was --help
            raise
        raise Mv3dError(_without_box(shown.getvalue())) from None


def _without_box(message: str) -> str:
    """Flatten tyro's framed message to one line: a title, then sections divided by rules (ASCII where it must be)."""
    lines = [line.strip("╭╮╰╯│─ ") for line in message.splitlines()[1:]]
    return " ".join(line if line.strip("-") else ";" for line in lines).strip("; ").replace(" ;", ";")


if __name__ == "__main__":
    sys.exit(main())

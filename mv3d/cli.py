"""The command line ``mv3d``: parsing, calling and printing; every verb's work is a function elsewhere."""

from __future__ import annotations

import sys
from typing import Annotated

import tyro

from mv3d.command_line import run_program
from mv3d.verbs.doctor import DoctorVerb
from mv3d.verbs.export import ExportVerb
from mv3d.verbs.lift import LiftVerb
from mv3d.verbs.lora import LoraVerb
from mv3d.verbs.orbit import OrbitVerb
from mv3d.verbs.push import PushVerb
from mv3d.verbs.web import WebVerb

Verb = (
    Annotated[OrbitVerb, tyro.conf.subcommand("orbit")]
    | Annotated[LiftVerb, tyro.conf.subcommand("lift")]
    | Annotated[ExportVerb, tyro.conf.subcommand("export")]
    | Annotated[LoraVerb, tyro.conf.subcommand("lora")]
    | Annotated[PushVerb, tyro.conf.subcommand("push")]
    | Annotated[WebVerb, tyro.conf.subcommand("web")]
    | Annotated[DoctorVerb, tyro.conf.subcommand("doctor")]
)


def main(arguments: list[str] | None = None) -> int:
    """One picture of an object in, a consistent turntable and a textured mesh out."""
    return run_program("mv3d", Verb, main.__doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())

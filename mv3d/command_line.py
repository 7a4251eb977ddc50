"""What the four programs' command lines share: parsing, and what becomes of errors.

A verb is a frozen dataclass: its fields are options, its docstrings their help, and ``run`` does it. A mistake of the
user's is one line, ``PROGRAM: what is wrong``, and exit code 2; ``--verbose`` shows the traceback before. Where nobody
reads what is printed any more (``| head -1``), a program ends without a word, as others do.
"""

from __future__ import annotations

import io
import os
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Protocol, TextIO

import tyro

from mv3d.errors import Mv3dError

_OF_SIGPIPE = 128 + 13
"""The exit code that shells give programs whose output nobody reads any more."""

Verbose = Annotated[bool, tyro.conf.arg(help="Show the traceback of errors.")]


class Verb(Protocol):
    """What a program can be told to do."""

    @property
    def verbose(self) -> bool:
        """Whether errors show their traceback."""
        ...

    def run(self) -> int:
        """Do it; returns the exit code."""
        ...


def run_program(
    name: str,
    verbs: Any,
    description: str | None,
    arguments: list[str] | None = None,
    *,
    prog: str | None = None,
    stopped: str = "stopped",
) -> int:
    """Parse one of ``verbs`` (a dataclass, or a union of them) and run it; returns the exit code.

    Args:
        name: of the program, which begins each line of its own on stderr.
        verbs: as tyro takes them.
        description: for the help.
        arguments: words; the process's own if None.
        prog: how the program is called, if not by its name.
        stopped: what is said when it is interrupted, before exit code 130.
    """
    verb: Verb | None = None
    try:
        try:
            verb = _parse(verbs, description, arguments, prog or name)
            code = verb.run()
        except (SystemExit, BrokenPipeError):
            raise
        except (Mv3dError, OSError) as error:
            print_error(error, verb, program=name)
            code = 2
        except KeyboardInterrupt:
            print(f"{name}: {stopped}", file=sys.stderr)
            code = 130
        finally:
            _flush()
    except BrokenPipeError as error:
        if _silence():
            return _OF_SIGPIPE
        print_error(error, verb, program=name)  # another pipe, such as a video encoder's
        return 2
    return code


def print_error(error: Exception, verb: Verb | None = None, *, program: str = "mv3d") -> None:
    """Print an error as one line on stderr, with the verb's option that mends it, if it has one."""
    if verb is not None and verb.verbose:
        traceback.print_exception(error)
    line = " ".join(str(error).split())
    argument = _argument_of(error)
    if argument is not None and argument in _options_of(verb):
        line += f" (--{argument.replace('_', '-')})"
    print(f"{program}: {line}", file=sys.stderr)


def _flush() -> None:
    """Write what is still to be written now, and not at the end of the process, where nothing can be done about it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _silence() -> bool:
    """Whether nobody reads what is printed any more; what is printed from now on goes nowhere then."""
    gone = [stream.fileno() for stream in (sys.stdout, sys.stderr) if stream is not None and _is_unread(stream)]
    if gone:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for place in gone:
            os.dup2(nowhere, place)
        os.close(nowhere)
    return bool(gone)


def _is_unread(stream: TextIO) -> bool:
    """Whether a stream is a pipe that nobody reads any more; asked, since an error may be another pipe's."""
    try:
        stream.flush()
        asked = select.poll()
        asked.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in asked.poll(0))
    except BrokenPipeError:
        return True
    except (AttributeError, OSError):  # Windows has no poll, and a stream in memory no number
        return False


def _parse(verbs: Any, description: str | None, arguments: list[str] | None, prog: str) -> Verb:
    shown = io.StringIO()
    try:
        with redirect_stderr(shown):
            return tyro.cli(
                verbs,
                prog=prog,
                description=description,
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


def _argument_of(error: BaseException | None) -> str | None:
    """The parameter that the error, or what it came from, names."""
    while error is not None:
        if isinstance(error, Mv3dError) and error.argument is not None:
            return error.argument
        error = error.__cause__
    return None


def _options_of(verb: object) -> Iterator[str]:
    if is_dataclass(verb) and not isinstance(verb, type):
        for field in fields(verb):
            yield field.name
            yield from _options_of(getattr(verb, field.name))

"""The help of every command is in `tests/snapshots`, so that no option changes by the way."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from mv3d.command_line import run_program

ROOT = Path(__file__).parents[1]
SNAPSHOTS = Path(__file__).parent / "snapshots"
PROGRAMS = {
    "mv3d": ("mv3d.cli", ("", "orbit", "lift", "export", "lora", "push", "web", "doctor")),
    "render": ("render.__main__", ("", "list", "orbits", "depth", "sheet", "pack", "curate")),
    "finetune": ("finetune.__main__", ("",)),
    "eval": ("eval.__main__", ("", "weights", "protocols", "run", "score", "table", "gallery", "geometry")),
}


@dataclass(frozen=True)
class Broken:
    """A verb that writes to a program which has died."""

    verbose: bool = False

    def run(self) -> int:
        raise BrokenPipeError(32, "Broken pipe")


COMMANDS = [(program, verb) for program, (_, verbs) in PROGRAMS.items() for verb in verbs]


@pytest.mark.parametrize(("program", "verb"), COMMANDS, ids=["-".join(command).strip("-") for command in COMMANDS])
def test_help_is_as_in_the_snapshot(program, verb, capsys, monkeypatch):
    """Run with UPDATE_SNAPSHOTS=1 to accept a change of the command line."""
    monkeypatch.setenv("COLUMNS", "100")
    main = import_module(PROGRAMS[program][0]).main
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"] if verb else ["--help"])
    assert not stop.value.code
    snapshot = SNAPSHOTS / f"{'-'.join([program, verb]).strip('-')}.txt"
    shown = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()) + "\n"
    if "UPDATE_SNAPSHOTS" in os.environ:
        snapshot.write_text(shown, encoding="utf-8")
    assert shown == snapshot.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("program", "words"),
    [("mv3d", ["orbit", "a.png"]), ("render", ["list", "a.glb"]), ("finetune", ["a.yaml"]), ("eval", ["protocols"])],
)
def test_a_mistake_is_one_line_that_begins_with_the_program(program, words, capsys):
    main = import_module(PROGRAMS[program][0]).main
    assert main([*words, "--no-such-option"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"{program}: ")
    assert line.count("\n") == 1
    assert "--no-such-option" in line


@pytest.mark.parametrize(("program", "words"), [("render", ["list", "nowhere"]), ("eval", ["score", "nowhere", "x"])])
def test_verbose_shows_where_a_mistake_was_found(program, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main = import_module(PROGRAMS[program][0]).main
    assert main([*words, "--verbose"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith(f"{program}: nowhere does not exist")


@pytest.mark.parametrize(
    ("words", "buffered"),
    [
        ("mv3d.cli lift --help", True),
        ("render list cube.obj", False),
        ("finetune --help", False),
        ("eval protocols", True),
    ],
)
def test_nobody_reads_what_is_printed(words, buffered, tmp_path):
    """``COMMAND | head -1``: no traceback, and none of the interpreter's own complaints at its end."""
    (tmp_path / "cube.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", *words.split()]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "" if buffered else "1"}
    with os.fdopen(writer, "w") as gone:
        done = subprocess.run(command, cwd=tmp_path, env=env, stdout=gone, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_is_an_error_that_is_told(capsys):
    assert run_program("mv3d", Broken, None, []) == 2
    assert capsys.readouterr().err == "mv3d: [Errno 32] Broken pipe\n"

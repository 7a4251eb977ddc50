"""What a fresh machine is asked to do: README's two commands as they stand, and CI, which begins with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Stands for every program of the environment: tells what it is asked for, and in which surroundings.
PROGRAM = """#!/bin/sh
printf '%s|%s|%s\\n' "$(basename "$0") $*" "$(ls -A "$HOME" | tr '\\n' ' ')" "$MV3D_CACHE$HF_HOME$PYTHONPATH" >>"$LOG"
case "$1 $2" in
  "-c import sys; print(sys.executable)") echo "$0" ;;
  "-m pip") echo "$TMPDIR" ;;
  "-m venv") [ -e "$LOG.there" ] || ls -A >"$LOG.there"; mkdir -p "$3/bin"
             for name in python pip mv3d pytest ruff lint-imports pyright; do cp "$0" "$3/bin/$name"; done ;;
esac
[ "$(basename "$0") $*" != "$BROKEN" ]
"""

PAGE_TESTS = "python -m pytest -n 0 -m slow tests/mv3d/test_page.py"


def two_commands() -> list[str]:
    section = (ROOT / "README.md").read_text().split("\n## Two commands\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)\n```", section, re.DOTALL)
    return [command.removeprefix(".venv/bin/") for block in blocks for command in block.split(" && ")]


@pytest.fixture
def run_ci(tmp_path: Path):
    """Runs .ci/run in a clone of it and README, with no real program: exit code, output, and what was asked of whom."""
    if os.name == "nt" or not (shutil.which("git") and shutil.which("bash")):
        pytest.skip(".ci/run needs bash and git")
    clone, home = tmp_path / "clone", tmp_path / "home"
    (clone / ".ci").mkdir(parents=True)
    (home / ".cache" / "mv3d").mkdir(parents=True)
    for name in (".ci/run", "README.md"):
        shutil.copy(ROOT / name, clone / name)
    program = tmp_path / "bin" / "python3"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    shutil.copy(program, program.with_name("chromium"))  # else one would be installed
    subprocess.run(["git", "init", "-q"], cwd=clone, check=True)
    subprocess.run(["git", "add", "."], cwd=clone, check=True)
    (clone / "untracked.py").touch()

    def run(broken: str = "") -> tuple[int, str, list[list[str]]]:
        had = {"MV3D_CACHE": str(home), "HF_HOME": str(home), "PYTHONPATH": str(ROOT), "HOME": str(home)}
        given = {"LOG": str(tmp_path / "log"), "BROKEN": broken, "PYTHON": str(program), "TMPDIR": str(tmp_path)}
        given["PATH"] = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run([clone / ".ci/run"], env=os.environ | had | given, capture_output=True, text=True)
        lines = [line.split("|") for line in (tmp_path / "log").read_text().splitlines()]
        return done.returncode, done.stdout + done.stderr, [line for line in lines if line[0].split()[1:2] != ["-c"]]

    return run


def test_ci_begins_with_readmes_commands_in_an_empty_home(run_ci, tmp_path: Path):
    code, said, asked = run_ci()
    assert code == 0, said
    commands = [line[0].strip() for line in asked if "pip cache" not in line[0]]
    first = [command.replace('"', "") for command in two_commands()]
    assert [command.replace("python3 ", "python ", 1) for command in commands[: len(first)]] == first
    assert first[-1] == "pytest"
    for _, home, surroundings in asked:
        assert (home.strip(), surroundings) in (("", ""), (".cache", str(tmp_path / "home") * 2 + str(ROOT)))
    assert [line[1] for line in asked if line[0].strip() in first] == [""] * (len(first) - 1)  # venv is python3's
    assert (tmp_path / "log.there").read_text().split() == [".ci", "README.md"]
    # Only then what fetches something, and the tests that want it.
    later = commands[len(first) :]
    places = [
        later.index(command)
        for command in (
            "python -m eval weights",
            "python -m mv3d.blender install",
            "pytest -m slow or weights or blender",
            PAGE_TESTS,
        )
    ]
    assert places == sorted(places)


def test_ci_fails_where_the_page_does(run_ci):
    code, said, asked = run_ci(PAGE_TESTS)
    assert code == 1, said
    assert "FAILED: page_tests" in said
    assert any(line[0].startswith("pip wheel") for line in asked)  # the rest is done


@pytest.mark.parametrize("broken", ["mv3d orbit assets/chair.png", "pytest "])
def test_ci_ends_where_one_of_readmes_commands_fails(run_ci, broken: str):
    code, said, asked = run_ci(broken)
    assert code == 1, said
    assert asked[-1][0] == broken


def test_the_torch_that_readme_names_is_the_tested_one_and_constraints_choose_no_build():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    named = re.findall(r"torch==([\d.]+\d)", (ROOT / "README.md").read_text())
    assert named
    assert set(named) == {pins["torch"]}
    assert not [line for line in lines if line.startswith("-") or "+" in line.split("#")[0]]

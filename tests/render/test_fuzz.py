from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_no_damaged_or_hostile_file_breaks_a_run() -> None:
    command = [sys.executable, "-W", "ignore", "benchmarks/fuzz.py", "--count", "20", "--seed", "1"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 files" in done.stdout
    assert "0 faults" in done.stdout

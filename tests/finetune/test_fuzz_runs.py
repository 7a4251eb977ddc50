from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_damaged_or_hostile_that_training_reads_breaks_it() -> None:
    command = [sys.executable, "-W", "ignore", "benchmarks/fuzz_runs.py", "--count", "20", "--seed", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 cases" in done.stdout
    assert "0 faults" in done.stdout

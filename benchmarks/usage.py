"""What a command takes: memory at its peak, wall-clock, CPU seconds.

Linux counts into a process's peak what the process that started it had before. So the command is started by this file
as a program of its own, without PyTorch and with 10 MiB, and its peak is its own from there on.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def watch(command: list[str], log: Path, folder: Path) -> dict[str, Any]:
    """Run a command in a folder, its output into ``log``.

    Returns its exit code ``exit``, ``peak_gib`` of resident memory (of the largest process, if it starts others),
    ``seconds`` of wall-clock and ``cpu_seconds`` of all its processes.
    """
    # Isolated and without site-packages, which alone may import a lot.
    starter = [sys.executable, "-I", "-S", __file__, str(log.resolve()), *command]
    return json.loads(subprocess.run(starter, cwd=folder, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    """Run the command of the arguments, and print what it took."""
    log, *command = sys.argv[1:]
    started = time.monotonic()
    with open(log, "w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {
        "exit": code,
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

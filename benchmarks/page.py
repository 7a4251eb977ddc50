"""How long the page takes from a dropped picture to the first turntable, and does it keep memory from task to task?

    python -m benchmarks.page assets/chair.png [--tasks 50] [--num-views 21] [--model mini]

What the page does behind a drop, without the browser: the picture is copied and cut out, its surface drawn, and all
that is shown encoded; the sharp views are not begun. Memory is what the process holds, the model in it, after 5 tasks
and after all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from mv3d.app.asking import options_from
from mv3d.app.flow import Workshop
from mv3d.app.results import Results

_EARLY = 5  # tasks, after which everything that is made once has been made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--num-views", type=int, default=21)
    parser.add_argument("--model", default="mini")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Results(Path(folder)), (given.model,))
        options = options_from(workshop, {"num_views": given.num_views})
        workshop.load(options)
        seconds, held = [], {}
        for k in range(1, given.tasks + 1):
            cpu, wall = time.process_time(), time.perf_counter()
            result = workshop.results.visitor(None).add(given.picture, given.picture.name)
            for update in workshop.make("somebody", result, options):
                if update.get("turn"):
                    sent = len(json.dumps(update))
                    seconds.append((time.process_time() - cpu, time.perf_counter() - wall))
                    break  # before the sharp views are begun
            held[k] = _resident_mib()
            if k in (1, _EARLY) or k % 10 == 0:
                print(f"task {k}: {seconds[-1][0]:.1f} CPU s, {seconds[-1][1]:.1f} s; {held[k]:.0f} MiB", flush=True)
    cpu_seconds, wall_seconds = np.median(seconds[1:], axis=0)
    print(
        f"from a drop to {given.num_views} views: {cpu_seconds:.1f} CPU s, {wall_seconds:.1f} s, {sent / 2**20:.2f} MiB"
    )
    print(f"memory after {_EARLY} tasks {held[_EARLY]:.0f} MiB, after {given.tasks} {held[given.tasks]:.0f} MiB")


def _resident_mib() -> float:
    """What the process holds now; Linux alone tells."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()

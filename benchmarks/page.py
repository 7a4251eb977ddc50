"""How long the page takes from a dropped picture to the first turntable, and does it keep memory from task to task?

    python -m benchmarks.page assets/chair.png [--tasks 50] [--num-views 21] [--model mini] [--whole]

What the page does behind a drop, without the browser: the picture is copied and cut out, its surface drawn, and all
that is shown encoded; then it is cancelled. Memory is what the process holds, the model in it, after 5 tasks and after
all. ``--whole`` makes one picture to its end, and compares the CPU seconds with those of the surface by itself and
then everything, as two tasks would: what the turntable on the way costs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from mv3d.app.asking import options_from
from mv3d.app.flow import Workshop
from mv3d.app.results import Results
from mv3d.options import OrbitOptions

_EARLY = 5  # tasks, after which everything that is made once has been made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--num-views", type=int, default=21)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--whole", action="store_true")
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
                    workshop.cancel("somebody")  # before the sharp views are made
            workshop.queue.submit("somebody", lambda _: None, {"": 1.0}).wait(600)  # until it has really ended
            held[k] = _resident_mib()
            if k in (1, _EARLY) or k % 10 == 0:
                print(f"task {k}: {seconds[-1][0]:.1f} CPU s, {seconds[-1][1]:.1f} s; {held[k]:.0f} MiB", flush=True)
        if given.whole:
            _compare(workshop, given.picture, options)
    cpu_seconds, wall_seconds = np.median(seconds[1:] or seconds, axis=0)
    print(
        f"from a drop to {given.num_views} views: {cpu_seconds:.1f} CPU s, {wall_seconds:.1f} s, {sent / 2**20:.2f} MiB"
    )
    if given.tasks > _EARLY:
        print(f"memory after {_EARLY} tasks {held[_EARLY]:.0f} MiB, after {given.tasks} {held[given.tasks]:.0f} MiB")


def _compare(workshop: Workshop, picture: Path, options: OrbitOptions) -> None:
    """Print what the turntable on the way costs, beside a task of its own before."""
    spent = {}
    for name, ways in {
        "surface shown on the way": [options],
        "surface first, then all": [replace(options, preview=True, mesh=False), options],
    }.items():
        cpu = time.process_time()
        for way in ways:
            result = workshop.results.visitor(None).add(picture, picture.name)
            states = [
                update["status"]["state"] for update in workshop.make("somebody", result, way) if "status" in update
            ]
            assert states[-1] == "done"
        spent[name] = time.process_time() - cpu
        print(f"{name}: {spent[name]:.1f} CPU s", flush=True)
    on_the_way, apart = spent.values()
    print(f"ratio {on_the_way / apart:.2f}")


def _resident_mib() -> float:
    """What the process holds now; Linux alone tells."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()

"""How much faster than Cycles is the ray caster? One object, 21 lit views of 256 px, both side by side.

    python benchmarks/speed.py SOURCE OBJECT_ID [--repeat 3]

Counts CPU seconds, loading included, so that other work on the machine disturbs the ratio little: on cores that are all
busy it is the ratio of throughputs. Four rays a pixel against Cycles' 16 samples.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import numpy as np

from mv3d.cameras import static_orbit
from render.scene import cycles, raycast
from render.scene.lights import make_lights
from render.scene.scene import make_scene
from render.sources import find_objects


def cpu_seconds(who: int) -> float:
    """User and system time of this process or its children."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("object_id")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--views", type=int, default=21)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--samples", type=int, default=16, help="of Cycles")
    options = parser.parse_args()
    (item,) = (item for item in find_objects(options.source) if item.object_id == options.object_id)
    ratios = []
    for k in range(options.repeat):
        start = cpu_seconds(resource.RUSAGE_SELF)
        scene = make_scene(item.load(), linear_colours=item.linear_colours)
        radius = scene.radius / float(np.sin(np.radians(33.8 / 2)))
        cameras = static_orbit(options.views, 15, radius, size_px=options.size)
        raycast.render_orbit(scene, cameras, make_lights(k))
        ours = cpu_seconds(resource.RUSAGE_SELF) - start
        start = cpu_seconds(resource.RUSAGE_CHILDREN)
        cycles.render_orbit(item, scene, cameras, make_lights(k), samples=options.samples, threads=1)
        theirs = cpu_seconds(resource.RUSAGE_CHILDREN) - start
        ratios.append(theirs / ours)
        print(f"ray caster {ours:.2f} s, Cycles {theirs:.2f} s: {ratios[-1]:.1f} times", flush=True)
    print(f"median of {options.repeat}: {np.median(ratios):.1f} times, {len(scene.corners)} triangles")


if __name__ == "__main__":
    main()

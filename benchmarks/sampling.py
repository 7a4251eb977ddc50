"""How much faster is a model in its own few steps than the same weights in 25 steps with guidance, as stock SVD takes?

    python -m benchmarks.sampling assets/chair.png [--model mini] [--guidance 2] [--repeats 3]

Whole orbits from a framed picture, taken in turns in one process that has loaded everything; CPU and wall seconds,
medians, and what the process held at most. How good the views are is for ``python -m eval run --steps N``.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.image import frame_picture, load_picture
from mv3d.model.checkpoints import load_model

_STOCK_STEPS = 25


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="a cut-out")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--guidance", type=float, default=2.0, help="of the 25 steps")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model = load_model(options.model)
    picture = frame_picture(load_picture(options.picture), model.output_px)
    own = GenerateSettings(num_views=model.facts.num_views)
    ways = {
        f"its own {model.facts.num_steps}": own,
        f"{_STOCK_STEPS}, guidance {options.guidance:g}": replace(own, steps=_STOCK_STEPS, guidance=options.guidance),
    }
    generate_orbit(picture, model, own)  # the first one pays for what is made once
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, settings in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            generate_orbit(picture, model, settings)
            seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    medians = {name: np.median(values, axis=0) for name, values in seconds.items()}
    for name, (cpu, wall) in medians.items():
        print(f"{name} steps: {cpu:.1f} CPU s, {wall:.1f} s an orbit of {own.num_views} views, {model.output_px} px")
    ours, stock = medians.values()
    print(f"ratio {stock[0] / ours[0]:.1f} (CPU), {stock[1] / ours[1]:.1f} (wall)")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()

"""How much faster is a model in its own few steps than the same weights in 25 steps with guidance, as stock SVD takes?

    python -m benchmarks.sampling assets/chair.png [--steps 1 4] [--model mini] [--guidance 2] [--repeats 3]

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
    parser.add_argument("--steps", type=int, nargs="+", help="numbers of steps to compare, if not the model's own")
    parser.add_argument("--guidance", type=float, default=2.0, help="of the 25 steps")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model = load_model(options.model)
    picture = frame_picture(load_picture(options.picture), model.output_px)
    own = GenerateSettings(num_views=model.facts.num_views)
    ways = {f"{steps}": replace(own, steps=steps) for steps in options.steps or [model.facts.num_steps]}
    stock = f"{_STOCK_STEPS} with guidance {options.guidance:g}"
    ways[stock] = replace(own, steps=_STOCK_STEPS, guidance=options.guidance)
    generate_orbit(picture, model, own)  # the first one pays for what is made once
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, settings in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            generate_orbit(picture, model, settings)
            seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    medians = {name: np.median(values, axis=0) for name, values in seconds.items()}
    for name, took in medians.items():
        cpu_ratio, wall_ratio = medians[stock] / took
        print(f"steps {name}: {took[0]:.1f} CPU s, {took[1]:.1f} s; {cpu_ratio:.1f} (CPU), {wall_ratio:.1f} (wall)")
    print(f"ratios: times as fast as {stock} steps; orbits of {own.num_views} views, {model.output_px} px")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()

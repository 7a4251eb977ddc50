"""A picture to an orbit and a mesh, by the bundled model; what ``mv3d orbit PICTURE --mesh`` does.

python examples/01_orbit_from_python.py --picture assets/chair.png --out chair_orbit
"""

from __future__ import annotations

from pathlib import Path

import tyro

from mv3d.jobs import make_orbits, plan_jobs
from mv3d.options import OrbitOptions
from mv3d.orbit import load_orbit


def main(picture: Path = Path("assets/chair.png"), out: Path = Path("chair_orbit"), preview: bool = False) -> None:
    """Make an orbit folder with a mesh in it; ``preview`` leaves the diffusion model out."""
    jobs = plan_jobs([picture], out)
    for result in make_orbits(jobs, OrbitOptions(mesh=True, preview=preview), keep_existing=False):
        if result.error is not None:
            raise result.error
        print(f"{result.mesh} in {result.seconds:.1f} s")

    orbit = load_orbit(out)
    for k in range(0, len(orbit), 7):
        camera, opacity = orbit.cameras[k], orbit.frames[k, ..., 3].mean()
        print(f"view {k}: azimuth {camera.azimuth_deg:.0f} degrees, the object covers {opacity:.0%} of the picture")


if __name__ == "__main__":
    tyro.cli(main)

"""A nerfstudio dataset, or any folder of views with a transforms.json, to a textured mesh.

python examples/03_lift_a_nerfstudio_dataset.py DATASET --out object.glb

The views show the object cut out, or on a plain background.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from mv3d.export import save_mesh
from mv3d.lift import LiftSettings, lift_orbit
from mv3d.orbit import load_orbit


def main(dataset: Annotated[Path, tyro.conf.Positional], out: Path = Path("object.glb"), preview: bool = False) -> None:
    """Lift it; ``preview`` takes the silhouettes alone, coarsely."""
    orbit = load_orbit(dataset)
    settings = LiftSettings()  # fits silhouettes and colours, half a minute
    mesh = lift_orbit(orbit, settings.preview() if preview else settings)
    save_mesh(mesh, out)
    print(f"{out}: {len(mesh.faces)} triangles from {len(orbit)} views")


if __name__ == "__main__":
    tyro.cli(main)

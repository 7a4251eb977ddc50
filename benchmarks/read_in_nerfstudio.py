"""Read exported datasets with nerfstudio's own parsers, and compare cameras, rays and pixels with the orbit's.

    python benchmarks/read_in_nerfstudio.py ORBIT NERFSTUDIO_DATASET INSTANT_NGP_DATASET

Runs where nerfstudio and mv3d can both be imported; of nerfstudio nothing but its parsers is needed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

# pyright: reportMissingImports=false
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset

from mv3d.orbit import Orbit, load_orbit

POINTS = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))


def main(orbit_folder: str, nerfstudio_folder: str, nerf_synthetic_folder: str) -> None:
    """Read and print."""
    orbit = load_orbit(Path(orbit_folder))
    everything = list(range(len(orbit)))
    for scales in (False, True):
        config = NerfstudioDataParserConfig(
            data=Path(nerfstudio_folder), center_method="none", auto_scale_poses=scales, eval_mode="all"
        )
        compare(config.setup(), orbit, everything, f"nerfstudio-data, auto-scale-poses {scales}")
    config = BlenderDataParserConfig(data=Path(nerf_synthetic_folder))
    compare(config.setup(), orbit, [k for k in everything if k % 8 != 4], "blender-data")


def compare(parser: Any, orbit: Orbit, indices: list[int], name: str) -> None:
    """Print the largest differences between what the parser gives and the orbit's views of these indices."""
    outputs = parser.get_dataparser_outputs("train")
    pictures = InputDataset(outputs)
    moved = outputs.dataparser_scale * (
        POINTS @ outputs.dataparser_transform[:, :3].numpy().T + outputs.dataparser_transform[:, 3].numpy()
    )
    pixel_error, ray_error, colour_error = 0.0, 0.0, 0.0
    for place, k in enumerate(indices):
        camera, ours = outputs.cameras[place], orbit.cameras[k]
        world_from_cam = camera.camera_to_worlds.numpy()
        in_cam = (moved - world_from_cam[:, 3]) @ world_from_cam[:, :3]
        columns = camera.cx.item() + camera.fx.item() * in_cam[:, 0] / -in_cam[:, 2]
        rows = camera.cy.item() - camera.fy.item() * in_cam[:, 1] / -in_cam[:, 2]
        pixel_error = max(pixel_error, np.abs(np.stack([columns, rows], axis=1) - ours.project(POINTS)[0]).max())
        rays = outputs.cameras.generate_rays(place, coords=torch.tensor([30.5, 40.5]))  # row, column
        ray_error = max(ray_error, np.abs(rays.directions.numpy().ravel() - ours.directions([40.5, 30.5])).max())
        picture = pictures.get_image_float32(place).numpy()
        expected = orbit.frames[k] if picture.shape[-1] == 4 else orbit.on()[k]
        colour_error = max(colour_error, np.abs(picture - expected).max())
    print(
        f"{name}: {len(outputs.cameras)} of {len(orbit)} views; largest differences: {pixel_error:.1e} px, "
        f"{ray_error:.1e} of rays' directions, {colour_error:.1e} of colours"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Lights that stand still while the camera circles: a sky and one or two far lamps."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import NDArray

_BRIGHTEST = 1.0  # linear irradiance on the best-lit side; white keeps its shading and does not clip


@dataclass(frozen=True, eq=False)
class Lights:
    """A hemisphere (``sky`` from above, ``ground`` from below) and lamps at infinity, in linear light."""

    sky: float
    ground: float
    directions: NDArray[np.float32]
    """Unit vectors towards the lamps, (L, 3), in the world."""
    strengths: NDArray[np.float32]

    def irradiance(self, normals: NDArray) -> NDArray[np.float32]:
        """Light that arrives at surfaces with unit ``normals`` (..., 3): (...)."""
        up = normals[..., 2] * 0.5 + 0.5
        lamps = np.maximum(normals @ self.directions.T, 0) @ self.strengths
        return (self.ground + (self.sky - self.ground) * up + lamps).astype(np.float32)


def make_lights(seed: int) -> Lights:
    """Draw lights from a seed, scaled so that no side is brighter than white."""
    rng = np.random.default_rng(seed)
    azimuth = rng.uniform(0, 2 * pi)
    azimuths = np.array([azimuth, azimuth + pi + rng.uniform(-pi / 3, pi / 3)])
    elevations = np.radians(np.array([rng.uniform(25, 70), rng.uniform(5, 50)]))
    strengths = np.array([rng.uniform(0.35, 0.65), rng.choice([0.0, 1.0]) * rng.uniform(0.1, 0.3)])
    directions = np.stack(
        [np.cos(elevations) * np.sin(azimuths), -np.cos(elevations) * np.cos(azimuths), np.sin(elevations)], axis=-1
    )
    sky, ground = rng.uniform(0.6, 0.8), rng.uniform(0.4, 0.55)
    lights = Lights(sky, ground, directions.astype(np.float32), strengths.astype(np.float32))
    scale = _BRIGHTEST / float(lights.irradiance(_sphere(500)).max())
    return Lights(sky * scale, ground * scale, lights.directions, lights.strengths * np.float32(scale))


def _sphere(count: int) -> NDArray:
    """Directions spread evenly over the sphere (Fibonacci lattice), (count, 3)."""
    z = 1 - 2 * (np.arange(count) + 0.5) / count
    azimuth = np.arange(count) * pi * (3 - 5**0.5)
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], axis=-1)

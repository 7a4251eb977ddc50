from collections.abc import Callable

import numpy as np
import pytest

from mv3d.cameras import static_orbit
from mv3d.orbit import Facts, Orbit, from_uint8

MakeOrbit = Callable[..., Orbit]


@pytest.fixture
def make_orbit() -> MakeOrbit:
    """Orbits of random blocks with a transparent margin; values are whole 255ths, so that files keep them exactly."""

    def make(
        seed: int, num_views: int = 5, size_px: int = 32, elevation_deg: float = 10.0, input_index: int | None = 0
    ):
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 256, (num_views, size_px // 4, size_px // 4, 4), dtype=np.uint8)
        blocks[..., 3] = 255
        blocks[:, :1, :, 3] = blocks[:, :, -1:, 3] = 0
        frames = from_uint8(blocks.repeat(4, axis=1).repeat(4, axis=2))
        return Orbit(frames, static_orbit(num_views, elevation_deg, size_px=size_px), Facts(input_index=input_index))

    return make

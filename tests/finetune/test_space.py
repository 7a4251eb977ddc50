"""What a ball's views tell of space, checked against the ball."""

from __future__ import annotations

from dataclasses import replace
from math import radians, sin
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.pictures import to_tensor
from finetune.space import SeenSpace
from mv3d.cameras import static_orbit
from mv3d.pack import Pack, pack_orbits
from mv3d.pixels import to_uint8
from tests.finetune.conftest import make_ball

TOLERANCE = 0.09  # pixels are 1/16 of a frame radius wide


@pytest.fixture(scope="module")
def pack(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return pack_orbits([rendered], tmp_path_factory.mktemp("space") / "pack", 32)


@pytest.fixture(params=[0, 2])
def ball(pack: Pack, request: pytest.FixtureRequest) -> tuple[SeenSpace, float]:
    """A ball's views, beginning at one of them, and its radius in frame radii."""
    start, orbit = request.param, 1
    cameras = pack.cameras_from(orbit, start)
    rng = np.random.default_rng(orbit)
    rng.random((2, 3))
    radius = rng.uniform(0.25, 0.45) / (cameras[0].radius * sin(radians(cameras[0].fov_deg) / 2))
    depth = np.roll(pack.depth[orbit], -start, axis=0)
    return SeenSpace.of(to_tensor(pack.frames_from(orbit, start)), depth, cameras), radius


def test_space_in_front_of_the_surface_is_empty_and_the_inside_is_not(ball: tuple[SeenSpace, float]):
    space, radius = ball
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    occupancy, distance = space.occupancy(points), points.norm(dim=-1)
    assert (occupancy[distance < radius - TOLERANCE] > 0.99).all()
    beside = (distance > radius + TOLERANCE) & (points[:, 2].abs() < 0.2)  # four views at one height leave much unseen
    seen_by_all = beside & (points[:, :2].norm(dim=-1) > 1.3 * radius)
    assert seen_by_all.sum() > 100
    assert (occupancy[seen_by_all] < 0.01).all()


def test_depth_empties_what_silhouettes_leave(ball: tuple[SeenSpace, float]):
    space, radius = ball
    blind = replace(space, depth=torch.zeros_like(space.depth))
    points = (torch.rand(400_000, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1) * radius * 1.4
    shell = points[(points.norm(dim=-1) > radius + TOLERANCE) & (blind.occupancy(points) > 0.99)]
    assert len(shell) > 20  # the hull of four views bulges
    assert (space.occupancy(shell) < 0.5).float().mean() > 0.5


def test_surface_points_lie_on_the_ball_in_its_colours(ball: tuple[SeenSpace, float]):
    space, radius = ball
    points, colours = space.surface(500, torch.Generator().manual_seed(0))
    assert points.shape == (500, 3)
    assert torch.allclose(points.norm(dim=-1), torch.full((500,), radius), atol=0.01)
    assert len(colours.T.unique(dim=0)) == 2
    assert (space.occupancy(points * 0.8) > 0.5).all()


def test_half_of_the_points_asked_are_near_the_surface(ball: tuple[SeenSpace, float]):
    space, radius = ball
    points = space.points_to_ask(2000, torch.Generator().manual_seed(0))
    near = (points.norm(dim=-1) - radius).abs() < 0.2
    assert near[:1000].float().mean() > 0.95
    assert near[1000:].float().mean() < 0.5


def test_views_of_other_lenses_and_principal_points_tell_the_same():
    still = static_orbit(4, 15, size_px=32)
    changes = [{}, {"focal_px": 40.0}, {"cx_px": 20.0, "cy_px": 13.0}, {"focal_px": 45.0, "cx_px": 13.0}]
    cameras = tuple(replace(camera, **change) for camera, change in zip(still, changes, strict=True))
    orbit, depth = make_ball(1, cameras)
    space = SeenSpace.of(to_tensor(to_uint8(orbit.frames)), depth, cameras)
    rng = np.random.default_rng(1)
    rng.random((2, 3))
    radius = rng.uniform(0.25, 0.45) / (still[0].radius * sin(radians(still[0].fov_deg) / 2))
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    occupancy, distance = space.occupancy(points), points.norm(dim=-1)
    assert (occupancy[distance < radius - TOLERANCE] > 0.99).all()
    beside = (points[:, 2].abs() < 0.2) & (points[:, :2].norm(dim=-1) > 1.3 * radius)
    assert (occupancy[beside] < 0.01).all()
    surface, _ = space.surface(500, torch.Generator().manual_seed(0))
    assert (surface.norm(dim=-1) - radius).abs().max() < TOLERANCE

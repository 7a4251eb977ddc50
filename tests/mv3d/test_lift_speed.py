"""What was made quick in lifting is still what the formulas say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from mv3d.cameras import Camera
from mv3d.lift.descent import Adam
from mv3d.lift.field import SurfaceField
from mv3d.lift.grid import Grid
from mv3d.lift.rays import LookUp
from mv3d.lift.silhouettes import outline_distance
from mv3d.lift.views import SilhouetteViews

BLUR = 0.13
LENGTHS = (3, 0, 5, 1, 0)


def disc(size_px: int, radius_px: float) -> tuple[np.ndarray, np.ndarray]:
    """A disc's alpha, and the true distance to its outline, positive inside."""
    at = np.arange(size_px) + 0.5 - size_px / 2 - 1.3
    distance = radius_px - np.hypot(at[:, None], at[None])
    return np.clip(distance + 0.5, 0, 1).astype(np.float32), distance


def test_outlines_are_exact_near_them_and_within_a_pixel_everywhere():
    alpha, true = disc(96, 24.2)
    wrong = np.abs(outline_distance(alpha, 0) - true)
    assert wrong[np.abs(true) < 7].max() < 0.1
    assert wrong.max() < 0.8


def test_silhouettes_say_about_points_what_their_cameras_and_outlines_say():
    alpha, _ = disc(64, 20.0)
    cameras = [Camera.looking_at_origin(azimuth, 25, size_px=64) for azimuth in (10, 130, 250)]
    views = SilhouetteViews(np.stack([alpha] * 3), cameras)
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (500, 3))
    points[0] = 3 * cameras[0].position  # behind it, for all of the three else in sight or not
    expected = []
    for view, camera in enumerate(cameras):
        pixels, depth = camera.project(points)
        outline = outline_distance(alpha, 8)
        value = ndimage.map_coordinates(outline, pixels.T[::-1] - 0.5 + 8, order=1, mode="nearest")
        expected.append(np.where(depth > 0, value * depth / camera.focal_px, np.inf))
        assert views.outline_px(view).shape == (64, 64)
    np.testing.assert_allclose(views.lowest(points, 2), np.sort(expected, axis=0)[:2], atol=1e-5)


def test_a_field_on_another_grid_is_the_field_looked_up_there():
    rng = np.random.default_rng(1)
    grid = Grid(np.array([0.1, -0.2, 0.3]), 0.2, (5, 7, 6))
    other = Grid(np.array([0.0, 0.0, 0.2]), 0.13, (9, 8, 10))  # reaches out of the first
    field = rng.normal(size=(*grid.shape, 2)).astype(np.float32)
    found = grid.resample(field, other)
    points = other.points(other.indices)
    for k in range(2):
        expected = grid.interpolate(field[..., k], points).reshape(other.shape)
        np.testing.assert_allclose(found[..., k], expected, atol=1e-5)


@pytest.fixture
def seen() -> tuple[SurfaceField, np.ndarray]:
    """A random field, and points on five rays in it."""
    rng = np.random.default_rng(2)
    grid = Grid(np.zeros(3), 0.25, (5, 6, 4))
    parts = [rng.normal(size=(*grid.shape, width)).astype(np.float32) for width in (1, 3, 1)]
    field = SurfaceField.of(grid, parts[0][..., 0], parts[1], parts[2][..., 0] + 0.5, torch.device("cpu"))
    points = rng.uniform(0, 0.25 * (np.array(grid.shape) - 1), (sum(LENGTHS), 3)).astype(np.float32)
    return field, points


def test_rays_and_their_gradients_are_those_of_volume_rendering(seen: tuple[SurfaceField, np.ndarray]):
    field, points = seen
    towards = torch.from_numpy(np.random.default_rng(3).normal(size=(len(LENGTHS), 4))).float()
    rgba = field.render(LookUp(field.grid, points, torch.device("cpu")), torch.tensor(LENGTHS), BLUR)
    (rgba * towards).sum().backward()

    # Ray by ray, as NeRF's paper has it, of dense look-ups in float64.
    distance, colour = (part.detach().double().requires_grad_() for part in (field.distance, field.colour))
    matrix = _look_up_matrix(field.grid, points)
    density = torch.sigmoid((matrix @ torch.minimum(distance, field.limit.double()))[:, 0] / BLUR) / BLUR
    colours, start, expected = matrix @ colour, 0, []
    for length in LENGTHS:
        mine = slice(start, start + length)
        thickness = density[mine] * field.grid.spacing
        weight = torch.exp(thickness - thickness.cumsum(0)) * (1 - torch.exp(-thickness))
        expected.append(torch.cat([weight @ colours[mine], weight.sum()[None]]))
        start += length
    (torch.stack(expected) * towards).sum().backward()
    torch.testing.assert_close(rgba.double(), torch.stack(expected), atol=1e-5, rtol=1e-4)
    for ours, true in ((field.distance, distance), (field.colour, colour)):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.double(), true.grad, atol=1e-5, rtol=1e-3)


def test_adam_is_torch_s():
    rng = np.random.default_rng(4)
    ours, theirs = (
        [torch.from_numpy(rng_.normal(size=shape)).requires_grad_() for shape in ((7, 3), (4,))]
        for rng_ in (np.random.default_rng(5), np.random.default_rng(5))
    )
    quick = Adam([(ours[0], 0.03), (ours[1], 0.005)], betas=(0.9, 0.95))
    known = torch.optim.Adam(
        [{"params": [theirs[0]], "lr": 0.03}, {"params": [theirs[1]], "lr": 0.005}], betas=(0.9, 0.95)
    )
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.from_numpy(rng.normal(size=one.shape))
            other.grad = one.grad.clone()
        quick.step()
        known.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def _look_up_matrix(grid: Grid, points: np.ndarray) -> torch.Tensor:
    """(P, grid points): how much of each grid point is in each look-up."""
    each = np.eye(int(np.prod(grid.shape)), dtype=np.float32).reshape(-1, *grid.shape)
    return torch.from_numpy(
        np.stack([grid.interpolate(one, points.astype(np.float64)) for one in each], axis=1)
    ).double()

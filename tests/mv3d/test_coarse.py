"""The coarse network: its frusta are the project's cameras, several pictures are one object, elevation is estimated."""

from __future__ import annotations

import copy
from math import radians, sin
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mv3d.cameras import Camera
from mv3d.model.backbone import FEATURE_CHANNELS, Backbone
from mv3d.model.coarse import CoarseNet, Pictures, ray_points, silhouette_rays
from mv3d.model.coarse_config import CoarseConfig
from mv3d.model.coarse_folder import load_coarse
from mv3d.model.coarse_stage import ELEVATIONS_DEG, estimate_elevation_deg, find_object
from mv3d.model.frustum import STEEPEST_DEG, Frustum, axes, pixel_uv
from mv3d.model.posed_picture import PosedPicture
from mv3d.model.weights import save_module

FRUSTUM = Frustum(33.8)
CONFIG = CoarseConfig(
    picture_px=64,
    backbone_px=32,
    picture_channels=(8, 8, 16, 16),
    fine_channels=8,
    rays_px=32,
    num_bins=16,
    grid_size=16,
    image_channels=(8, 8, 8, 16),
    grid_channels=(8, 8, 16, 16),
)
ONE = torch.zeros(1, dtype=torch.long)
ANGLES = st.floats(-170, 170), st.floats(-60, 80)


@pytest.fixture(scope="module")
def network() -> CoarseNet:
    torch.manual_seed(0)
    network = CoarseNet(CONFIG).eval()
    torch.nn.init.normal_(network.residual_head.weight, std=0.3)
    return network


def _discs(count: int) -> torch.Tensor:
    axis = (torch.arange(64) + 0.5) / 32 - 1
    inside = (axis[:, None] ** 2 + axis[None] ** 2 < 0.4).float()
    rgb = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return torch.cat([rgb, inside.expand(count, 1, 64, 64)], dim=1)


@settings(max_examples=25, deadline=None)
@given(*ANGLES, st.floats(0.5, 5.0))
def test_projection_is_the_cameras_projection(azimuth_deg: float, elevation_deg: float, radius: float):
    camera = Camera.looking_at_origin(azimuth_deg, elevation_deg, radius, size_px=64)
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    pixels, _ = camera.project(points * radius * sin(radians(camera.fov_deg) / 2))  # frame radii to world units
    pose = torch.tensor([[radians(azimuth_deg), radians(elevation_deg)]], dtype=torch.float64)
    at = FRUSTUM.project(torch.from_numpy(points)[None], pose)[0].numpy()
    assert np.allclose((at[:, :2] + 1) * 32, pixels, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(*ANGLES)
def test_the_centres_of_bins_project_to_their_rays_and_bins(azimuth_deg: float, elevation_deg: float):
    uv = pixel_uv(6).reshape(-1, 2)
    pose = torch.tensor([radians(azimuth_deg), radians(elevation_deg)])
    points = FRUSTUM.points(uv, pose.expand(len(uv), 2), 8)
    at = FRUSTUM.project(points.reshape(1, -1, 3), pose[None])[0].view(len(uv), 8, 3)
    torch.testing.assert_close(at[..., :2], uv[:, None].expand(-1, 8, -1), atol=1e-5, rtol=0)
    centres = (torch.arange(8) + 0.5) / 4 - 1
    torch.testing.assert_close(at[..., 2], centres.expand(len(uv), -1), atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.floats(-170, 170), st.floats(-STEEPEST_DEG, STEEPEST_DEG))
def test_what_stands_upright_is_in_one_bin_under_any_camera(azimuth_deg: float, elevation_deg: float):
    pose = torch.tensor([[radians(azimuth_deg), radians(elevation_deg)]])
    post = torch.tensor([[0.3, -0.2, 1.0]]) * torch.stack(
        [torch.ones(9), torch.ones(9), torch.linspace(-0.8, 0.8, 9)], 1
    )
    across = FRUSTUM.project(post[None], pose)[0, :, 2]
    torch.testing.assert_close(across, across[:1].expand(9), atol=1e-6, rtol=0)
    assert FRUSTUM.project(-0.1 * axes(pose)[:, 2:], pose)[0, 0, 2] > 0  # farther from the camera: a later bin


@torch.no_grad()
def test_an_elevation_that_is_told_matters_to_what_rays_say(network: CoarseNet):
    told = [
        network(Pictures(_discs(1), torch.tensor([[0.0, elevation]]), ONE))[0].ray_logits for elevation in (0.0, 0.5)
    ]
    assert torch.equal(*told)  # as training begins: nothing of it has been learnt
    learnt = copy.deepcopy(network)
    torch.nn.init.normal_(learnt.picture_net.ray_place.weight)
    told = [
        learnt(Pictures(_discs(1), torch.tensor([[0.0, elevation]]), ONE))[0].ray_logits for elevation in (0.0, 0.5)
    ]
    assert not torch.allclose(*told, atol=1e-3)


@torch.no_grad()
def test_the_field_says_along_rays_what_the_picture_says_and_the_grid_adds(network: CoarseNet):
    pictures = Pictures(_discs(1), torch.tensor([[0.0, 0.3]]), ONE)
    field, seen = network(pictures)
    rays = silhouette_rays(pictures.rgba, CONFIG.rays_px)
    inner = (rays.row - 15.5).abs().maximum((rays.column - 15.5).abs()) < 5  # whose neighbours are rays too
    points = ray_points(network.frustum, rays, pictures.poses, CONFIG.rays_px, CONFIG.num_bins)[inner]
    points, logits = points.reshape(1, -1, 3), field.ray_logits[inner].reshape(-1)
    torch.testing.assert_close(network.occupancy_logits(field._replace(residual=0 * field.residual), points)[0], logits)
    assert (network.occupancy_logits(field, points)[0] - logits).abs().max() > 0.01
    assert seen.ray_geometry.shape == (len(rays.row), 4)


@torch.no_grad()
def test_objects_in_a_batch_do_not_know_of_each_other(network: CoarseNet):
    poses = torch.tensor([[0.0, 0.1], [0.0, 0.4], [2.0, 0.2], [0.0, 0.0]])
    together, _ = network(Pictures(_discs(4), poses, torch.tensor([0, 1, 1, 2])))
    apart, _ = network(Pictures(_discs(4)[1:3], poses[1:3], torch.tensor([0, 0])))
    points = torch.rand(1, 100, 3) - 0.5
    torch.testing.assert_close(
        network.occupancy_logits(together, points.expand(3, -1, -1))[1], network.occupancy_logits(apart, points)[0]
    )
    torch.testing.assert_close(
        network.colour(together, points.expand(3, -1, -1))[1], network.colour(apart, points)[0], atol=1e-5, rtol=0
    )
    one, _ = network(Pictures(_discs(4)[1:2], poses[1:2], torch.tensor([0])))
    assert (network.occupancy_logits(one, points) - network.occupancy_logits(apart, points)).abs().max() > 1e-3


@settings(max_examples=10, deadline=None)
@given(st.floats(-60, 60))
@torch.no_grad()
def test_what_is_taken_to_look_as_the_picture_does_has_its_pixels_colours(elevation_deg: float):
    network = CoarseNet(CONFIG)
    network.appearance_head.weight.zero_()
    network.appearance_head.bias.copy_(torch.tensor([0.0] * 6 + [30.0, 0.0]))
    axis = (torch.arange(64) + 0.5) / 64
    rgb = torch.stack([axis.expand(64, 64), axis[:, None].expand(64, 64), torch.zeros(64, 64)])
    pictures = Pictures(
        torch.cat([rgb, torch.ones(1, 64, 64)])[None], torch.tensor([[0.0, radians(elevation_deg)]]), ONE
    )
    points = (torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.8
    camera = Camera.looking_at_origin(0, elevation_deg, size_px=64)
    pixels, _ = camera.project(points[0].numpy() * camera.radius * sin(radians(camera.fov_deg) / 2))
    colour = network.colour(network(pictures)[0], points)[0].T
    assert np.allclose(colour[:, :2].numpy(), pixels / 64, atol=1e-4)  # the picture's red and green are its x and y


@torch.no_grad()
def test_every_silhouette_carves(network: CoarseNet):
    empty = _discs(2)
    empty[1, 3] = 0
    poses = torch.tensor([[0.0, 0.1], [2.0, 0.2]])
    field, _ = network(Pictures(empty, poses, torch.tensor([0, 0])))
    points = (torch.rand(1, 200, 3) - 0.5) * 0.4
    assert network.silhouettes(field, points).max() == 0
    one, _ = network(Pictures(empty[:1], poses[:1], torch.tensor([0])))
    assert network.silhouettes(one, points).min() > 0.99


@torch.no_grad()
def test_mirrored_pictures_get_mirrored_fields(network: CoarseNet):
    pictures = Pictures(_discs(2), torch.tensor([[0.0, 0.3], [0.8, -0.1]]), torch.tensor([0, 0]))
    mirror = torch.tensor([-1.0, 1.0])
    mirrored = pictures._replace(rgba=pictures.rgba.flip(-1), poses=pictures.poses * mirror)
    one, other = network.flip_averaged(pictures), network.flip_averaged(mirrored)
    points = torch.rand(1, 500, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    turned = points * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(
        network.occupancy_logits(one, points), network.occupancy_logits(other, turned), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(network.colour(one, points), network.colour(other, turned), atol=1e-4, rtol=1e-4)
    plain, _ = network(pictures)
    assert (network.occupancy_logits(plain, points) - network.occupancy_logits(one, points)).abs().max() > 0.01


def test_a_surface_is_found_in_the_pictures_and_has_their_outline(network: CoarseNet):
    pictures = [PosedPicture(rgba, 90.0 * k, 10.0) for k, rgba in enumerate(_discs(2))]
    for shown in (pictures[:1], pictures):
        found = find_object(network, shown)
        assert found.surface.is_watertight
        views = found.draw([picture.camera(64) for picture in shown], 64).views
        for picture, view in zip(shown, views, strict=True):
            drawn, seen = view[3] > 0, picture.rgba[3] > 0.5
            assert (drawn & seen).sum() > 0.85 * (drawn | seen).sum()


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = CoarseNet(CONFIG)
    torch.nn.init.normal_(network.residual_head.weight, std=0.1)
    torch.nn.init.normal_(network.appearance_head.weight, std=0.1)
    field, seen = network(Pictures(_discs(2), torch.tensor([[0.0, 0.1], [1.0, 0.2]]), torch.tensor([0, 0])))
    points = torch.rand(1, 300, 3) - 0.5
    asked = network.occupancy_logits(field, points).square().sum() + network.colour(field, points).square().sum()
    (asked + seen.ray_geometry.square().sum() + seen.elevation_rad.square().sum()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_backbone_gives_features_of_four_sizes():
    features = Backbone()(torch.rand(1, 3, 64, 64))
    assert [tuple(f.shape[1:]) for f in features] == [(c, 16 >> k, 16 >> k) for k, c in enumerate(FEATURE_CHANNELS)]


def test_an_estimated_elevation_is_that_of_the_mirrored_picture_too(network: CoarseNet, tmp_path: Path):
    picture = _discs(1)[0]
    found = estimate_elevation_deg(network, picture)
    assert found == pytest.approx(estimate_elevation_deg(network, picture.flip(-1)), abs=1e-4)
    assert ELEVATIONS_DEG[0] <= found <= ELEVATIONS_DEG[1]
    torch.nn.init.constant_(network.picture_net.elevation_head[-1].bias, 9.0)
    assert estimate_elevation_deg(network, picture) == ELEVATIONS_DEG[1]
    config = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__}
    save_module(network, config, tmp_path / "coarse")
    again = load_coarse(tmp_path)
    assert isinstance(again, CoarseNet)
    assert again.config == CONFIG
    assert estimate_elevation_deg(again, picture) == ELEVATIONS_DEG[1]


def test_axes_are_the_cameras():
    camera = Camera.looking_at_origin(40, 25, size_px=8)
    found = axes(torch.tensor([radians(40), radians(25)]))
    torch.testing.assert_close(found.T, torch.tensor(camera.world_from_cam[:3, :3].tolist()))

"""The surface between the stages: closed, true to the picture's outline, thin parts whole, drawn in its own pixels."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from trimesh import Trimesh
from trimesh.creation import icosphere
from trimesh.smoothing import filter_taubin

from mv3d.body import body_of
from mv3d.cameras import static_orbit
from mv3d.lift.grid import Grid
from mv3d.lift.raster import render_depth
from mv3d.lift.surface import LARGEST_CRUMB, extract_surface, smoothed
from mv3d.mesh import Mesh
from mv3d.model.alpha import from_autoencoder
from mv3d.model.coarse import CoarseNet, Field
from mv3d.model.coarse_stage import make_coarse_orbit
from mv3d.model.drawing import Appearance, draw_views, filled_colours, in_frame_radii
from mv3d.model.frustum import Frustum
from mv3d.model.posed_picture import PosedPicture
from mv3d.model.surface import extract_field
from tests.tiny import make_coarse_net

ELEVATION_DEG = 15.0
FRUSTUM = Frustum(33.8)


@dataclass
class Ellipsoid:
    """A coarse stage that knows one ellipsoid, green all over; ``sure`` is its logit inside, ``unsure`` outside."""

    axes: tuple[float, float, float] = (0.5, 0.35, 0.25)
    sure: float = 6.0
    unsure: float = -6.0
    frustum = FRUSTUM

    def occupancy_logits(self, field: object, points: Tensor) -> Tensor:
        inside = (points / torch.tensor(self.axes)).norm(dim=-1) < 1
        return torch.where(inside, self.sure, self.unsure)

    def appearance(self, field: object, points: Tensor) -> Appearance:
        rgb = torch.zeros(1, 3, points.shape[1])
        rgb[:, 1] = 1
        return Appearance(rgb, *torch.full((2, 1, points.shape[1]), 0.25))


def _alpha(mesh: Mesh, azimuth: int = 0, size_px: int = 128) -> np.ndarray:
    """The silhouette (S, S) of a mesh in frame radii, from one of eight sides."""
    camera = in_frame_radii(static_orbit(8, ELEVATION_DEG, size_px=size_px)[azimuth], size_px)
    return np.isfinite(render_depth(mesh, camera))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def _picture_of(solid: Ellipsoid) -> Tensor:
    """(4, 128, 128): the solid's true outline, in fine red and blue chequers."""
    turn = torch.linspace(0, torch.pi, 200)[:, None]
    around = torch.linspace(0, 2 * torch.pi, 400)[None]
    ball = torch.stack([turn.sin() * around.cos(), turn.sin() * around.sin(), turn.cos().expand(-1, 400)], dim=-1)
    points = (ball * torch.tensor(solid.axes)).reshape(1, -1, 3)
    uv = FRUSTUM.project(points, torch.tensor([[0.0, radians(ELEVATION_DEG)]]))[0, :, :2]
    at = ((uv + 1) * 64).long()
    alpha = torch.zeros(128, 128)
    alpha[at[:, 1], at[:, 0]] = 1
    cells = torch.arange(128) // 4
    red = ((cells[:, None] + cells[None]) % 2).float()
    return torch.stack([red, 0 * red, 1 - red, alpha])


@pytest.fixture(scope="module")
def drawn() -> tuple[Mesh, Tensor, Tensor]:
    """Surface, picture, and eight views (8, 4, 128, 128) of an ellipsoid."""
    solid = Ellipsoid()
    picture = _picture_of(solid)
    mesh = extract_field(solid, None, picture[3], radians(ELEVATION_DEG))
    views = draw_views(
        solid, None, mesh, [PosedPicture(picture, 0.0, ELEVATION_DEG)], static_orbit(8, ELEVATION_DEG, size_px=128), 128
    )
    return mesh, picture, views


def test_a_sure_field_becomes_its_own_surface(drawn):
    mesh, _, _ = drawn
    assert mesh.is_watertight
    radii = np.linalg.norm(mesh.vertices / Ellipsoid.axes, axis=1)
    assert np.percentile(np.abs(radii - 1), 99) < 0.08  # two cells of the grid at the shortest axis
    assert abs(np.median(radii) - 1) < 0.03


def test_views_show_the_surface_from_their_cameras(drawn):
    mesh, _, views = drawn
    for k, view in enumerate(views):
        assert _iou(view[3].numpy() > 0, _alpha(mesh, k)) > 0.95


def test_the_picture_s_own_pixels_are_where_it_shows_the_surface(drawn):
    _, picture, views = drawn
    front, back = from_autoencoder(views[[0, 4], :4])
    inside = torch.from_numpy(np.pad(np.ones((16, 30), bool), ((56, 56), (49, 49))))
    assert (front[:3] - picture[:3])[:, inside].square().mean() < 10 ** (-25 / 10)
    assert back[1, inside].mean() > 0.95  # the field's green
    assert front[1, inside].mean() < 0.05
    assert views[0, 4, inside].mean() > 0.99  # all of it is looked up
    assert (views[4, 4:, inside] / 2 + 0.5 - 0.25).abs().max() < 0.02  # the field's own shares


def test_the_surface_fills_the_picture_s_outline(drawn):
    mesh, picture, _ = drawn
    assert _iou(_alpha(mesh), picture[3].numpy() > 0.5) > 0.98


class Looking(CoarseNet):
    """A coarse network that knows the ellipsoid, and takes all colours from the pixel in front."""

    def __init__(self, solid: Ellipsoid) -> None:
        super().__init__(make_coarse_net().config)
        self._solid = solid
        with torch.no_grad():
            self.appearance_head.weight.zero_()
            self.appearance_head.bias.copy_(torch.tensor([0.0] * 6 + [30.0, 0.0]))

    def occupancy_logits(self, field: Field, points: Tensor) -> Tensor:
        return self._solid.occupancy_logits(field, points)


def test_the_surface_s_rim_has_the_object_s_colour_whatever_is_behind_its_cut_out():
    picture = _picture_of(Ellipsoid())
    picture[:3] = 0.8 * picture[3]  # a grey thing, cut out: where nothing is, pixels are black
    orbit = make_coarse_orbit(Looking(Ellipsoid()), picture, static_orbit(8, ELEVATION_DEG, size_px=128), 128)
    for view in from_autoencoder(orbit.views[:, :4]):
        rgb = view[:3, view[3] > 0.99]
        assert (rgb - 0.8).abs().max() < 0.02


def test_thin_parts_that_the_picture_shows_stay_whole():
    """A shaft of which the field says nothing, four pixels of 128 wide."""
    solid = Ellipsoid(axes=(0.4, 0.3, 0.2), unsure=-3.0)
    picture = _picture_of(solid)
    picture[3, 64:120, 62:66] = 1
    mesh = extract_field(solid, None, picture[3], radians(ELEVATION_DEG))
    assert mesh.is_watertight
    shaft = (slice(80, 118), slice(56, 72))
    assert _iou(_alpha(mesh)[shaft], picture[3].numpy()[shaft] > 0.5) > 0.7
    assert _iou(_alpha(mesh), picture[3].numpy() > 0.5) > 0.93
    # Without the picture's word there is no shaft.
    picture[3, 75:] = 0
    assert not _alpha(extract_field(solid, None, picture[3], radians(ELEVATION_DEG)))[shaft].any()


def test_no_ray_through_the_outline_meets_nothing_where_the_field_is_torn():
    """On the right, it knows fine upright stripes alone, near and far by turns, which are lost in smoothing."""

    class Torn(Ellipsoid):
        def occupancy_logits(self, field: object, points: Tensor) -> Tensor:
            at = self.frustum.project(points, torch.tensor([[0.0, radians(ELEVATION_DEG)]]))
            place = (2 * ((at[..., 0] * 48).floor() % 2) - 1) * 9 / 64  # the middle of a ray's bin
            leaves = torch.where((at[..., 2] - place).abs() < 0.006, self.sure, self.unsure)
            return torch.where(at[..., 0] < 0.1, super().occupancy_logits(field, points), leaves)

    inside = _picture_of(Ellipsoid())[3].numpy() > 0.5
    covered = _alpha(extract_field(Torn(), None, torch.from_numpy(inside).float(), radians(ELEVATION_DEG)))
    assert (covered & inside).sum() > 0.99 * inside.sum()


def test_a_spike_ends_where_the_picture_says():
    """From twelve pixels of 512 at its root to one at its tip: less than the grid's cells, which are of four."""
    solid = Ellipsoid(axes=(0.3, 0.3, 0.2))
    picture = torch.nn.functional.interpolate(_picture_of(solid)[None], (512, 512))[0]
    root, tip = 320, 440
    for row in range(root, tip):
        half = round(6 * (tip - row) / (tip - root))
        picture[3, row, 256 - half : 257 + half] = 1
    mesh = extract_field(solid, None, picture[3], radians(ELEVATION_DEG))
    assert abs(int(np.argwhere(_alpha(mesh, size_px=512).any(axis=1)).max()) - tip) < 12


def test_specks_are_removed():
    class WithSpeck(Ellipsoid):
        def occupancy_logits(self, field: object, points: Tensor) -> Tensor:
            speck = (points - torch.tensor([0.0, 0.8, 0.0])).norm(dim=-1) < 0.05
            return torch.where(speck, self.sure, super().occupancy_logits(field, points))

    solid = WithSpeck()
    mesh = extract_field(solid, None, _picture_of(solid)[3], radians(ELEVATION_DEG))
    assert mesh.vertices[:, 1].max() < 0.5


def test_colours_reach_over_the_picture_s_edge():
    picture = torch.zeros(4, 64, 64)
    picture[:, 20:40, 20:40] = torch.tensor([0.9, 0.2, 0.4, 1.0])[:, None, None]
    filled = filled_colours(picture[None])[0]
    torch.testing.assert_close(filled[:, 0, 0], torch.tensor([0.9, 0.2, 0.4]), atol=1e-3, rtol=0)
    torch.testing.assert_close(filled[:, 30, 30], torch.tensor([0.9, 0.2, 0.4]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", [2, 5, 8, 18, 21, 23])
def test_few_triangles_leave_no_crumbs(seed: int):
    """Threads are cut when a surface is simplified; what hung on by them is none of the object's parts."""
    noise = np.random.default_rng(seed).standard_normal((28, 28, 28))
    field = ndimage.gaussian_filter(noise, 1.6).astype(np.float32)
    mesh = extract_surface(field, Grid(np.zeros(3), 1.0, field.shape), 1500)
    assert mesh.is_watertight
    volumes = np.array([part.volume() for part in body_of(mesh).decompose()])
    assert volumes.min() > 0.9 * LARGEST_CRUMB * volumes.max()


@pytest.mark.parametrize("passes", [1, 6, 7])
def test_smoothing_is_trimeshs(passes: int):
    ball = icosphere(2)
    rough = ball.vertices * np.random.default_rng(0).uniform(0.9, 1.1, (len(ball.vertices), 1))
    expected = Trimesh(rough, ball.faces, process=False)
    filter_taubin(expected, lamb=0.5, nu=0.53, iterations=passes)
    mesh = Mesh(rough, ball.faces)
    assert np.array_equal(smoothed(mesh, passes).vertices, expected.vertices)
    assert np.array_equal(mesh.vertices, rough)  # as it was

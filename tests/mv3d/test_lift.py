from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from eval.metrics.geometry import volume_iou
from mv3d.cameras import static_orbit
from mv3d.errors import Mv3dError
from mv3d.export import load_mesh, save_mesh
from mv3d.lift import LiftSettings, lift_orbit
from mv3d.lift.raster import render_depth
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit
from mv3d.pixels import composite
from mv3d.srgb import linear_to_srgb, srgb_to_linear
from tests.mv3d import blocks
from tests.mv3d.blocks import (
    BACK,
    CRATE,
    FRONT,
    LEFT,
    RIGHT,
    SIDE_COLOURS,
    TABLE,
    TOP,
    silhouette_iou,
    view_boxes,
)

CELLS = LiftSettings(method="hull", resolution=48)
CELL = 0.7 / 48  # the crate's height


@pytest.fixture(scope="module")
def crate_views() -> Orbit:
    return view_boxes([CRATE], static_orbit(12, 20, size_px=64))


@pytest.fixture(scope="module")
def crate(crate_views: Orbit) -> Mesh:
    return lift_orbit(crate_views, CELLS)


def silhouettes(mesh: Mesh, orbit: Orbit) -> np.ndarray:
    """Black RGBA pictures of the mesh from the orbit's cameras."""
    masks = np.stack([np.isfinite(render_depth(mesh, camera)) for camera in orbit.cameras])
    return np.concatenate([np.zeros((*masks.shape, 3)), masks[..., None]], axis=-1).astype(np.float32)


def colour_of_side(mesh: Mesh, side: int) -> np.ndarray:
    """The mean colour of the surface that looks to one side."""
    axis, sign = side // 2, 2 * (side % 2) - 1
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = normals[:, axis] * sign > 0.95 * np.linalg.norm(normals, axis=1)
    assert mesh.texture is not None
    colours = mesh.texture.at(mesh.texture.corner_uv[facing].mean(axis=1))
    return np.average(colours, axis=0, weights=np.linalg.norm(normals[facing], axis=1))


def test_a_lifted_crate_is_closed_and_has_the_crate_s_size_and_place(crate: Mesh) -> None:
    assert crate.is_watertight
    assert crate.texture is not None
    assert crate.texture.normals is None  # no triangles were asked to go
    assert trimesh.Trimesh(crate.vertices, crate.faces, process=False).is_volume
    # Seen in perspective, the hull of a crate bulges over its sides (here 0.04), but not over its top.
    assert (crate.extent[0] < np.array(CRATE.low) + CELL / 2).all()
    assert (crate.extent[1] > np.array(CRATE.high) - CELL / 2).all()
    np.testing.assert_allclose(crate.extent, [CRATE.low, CRATE.high], atol=0.05)
    np.testing.assert_allclose(crate.extent[:, 2], [CRATE.low[2], CRATE.high[2]], atol=1.5 * CELL)


def test_a_lifted_crate_has_the_silhouettes_it_was_lifted_from(crate: Mesh, crate_views: Orbit) -> None:
    for lifted, given in zip(silhouettes(crate, crate_views), crate_views.frames, strict=True):
        assert silhouette_iou(lifted, given) >= 0.95


def test_light_is_taken_out_of_a_texture_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """One grey, lit from above and from one side: four times less differs between the sides, and the mean stays."""
    light = np.array([0.9, 0.5, 0.7, 0.7, 0.4, 1.0])
    lit = (np.clip(linear_to_srgb(0.5 * light), 0, 1) * 255).round().astype(np.uint8)
    monkeypatch.setattr(blocks, "SIDE_COLOURS", lit[:, None].repeat(3, axis=1))
    views = view_boxes([CRATE], static_orbit(12, 20, size_px=64))
    levels = []
    for delight in (False, True):
        mesh = lift_orbit(views, replace(CELLS, texture_px=256, delight=delight))
        sides = [colour_of_side(mesh, side) for side in (LEFT, RIGHT, FRONT, BACK, TOP)]
        levels.append(np.log(srgb_to_linear(np.array(sides) / 255).mean(axis=1)))
    assert np.ptp(levels[0]) > 0.5
    assert np.ptp(levels[1]) < np.ptp(levels[0]) / 4
    assert abs(levels[1].mean() - levels[0].mean()) < 0.1


@pytest.mark.parametrize("side", [LEFT, RIGHT, FRONT, BACK, TOP])
def test_every_side_has_its_own_colour(crate: Mesh, side: int) -> None:
    np.testing.assert_allclose(colour_of_side(crate, side), SIDE_COLOURS[side], atol=20)


def test_a_lifted_crate_is_upright_in_its_file(crate: Mesh, tmp_path: Path) -> None:
    save_mesh(crate, tmp_path / "crate.glb")
    stored = trimesh.load_scene(tmp_path / "crate.glb").to_mesh()
    np.testing.assert_allclose(stored.bounds[:, 1], [CRATE.low[2], CRATE.high[2]], atol=1.5 * CELL)
    np.testing.assert_allclose(stored.bounds[:, 2], [-CRATE.high[1], -CRATE.low[1]], atol=0.05)
    again = load_mesh(tmp_path / "crate.glb")
    assert again.is_watertight
    np.testing.assert_allclose(colour_of_side(again, FRONT), SIDE_COLOURS[FRONT], atol=20)


@pytest.mark.slow
def test_a_table_keeps_its_legs_its_gaps_and_a_flat_top() -> None:
    views = view_boxes(TABLE, static_orbit(16, 25, size_px=96))
    table = lift_orbit(views, LiftSettings(method="hull", resolution=64))
    assert table.is_watertight
    assert np.mean([silhouette_iou(*pair) for pair in zip(silhouettes(table, views), views.frames, strict=True)]) > 0.95
    # Silhouettes alone would leave a cone of 0.16 on the top, and one under each leg.
    np.testing.assert_allclose(table.extent[:, 2], [-0.3, 0.3], atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-9, 25])
def test_any_scale_of_world_is_kept(
    crate: Mesh, crate_views: Orbit, capfd: pytest.CaptureFixture, scale: float
) -> None:
    cameras = []
    for camera in crate_views.cameras:
        world_from_cam = camera.world_from_cam.copy()
        world_from_cam[:3, 3] *= scale
        cameras.append(replace(camera, world_from_cam=world_from_cam))
    large = lift_orbit(Orbit(crate_views.frames, tuple(cameras)), CELLS)
    np.testing.assert_allclose(large.extent, scale * crate.extent, atol=scale * CELL)
    assert colour_of_side(large, FRONT) == pytest.approx(SIDE_COLOURS[FRONT], abs=20)
    assert capfd.readouterr() == ("", "")  # libraries included


@pytest.mark.slow
def test_views_without_alpha_are_cut_out_of_their_plain_background(crate: Mesh, crate_views: Orbit) -> None:
    opaque = replace(crate_views, frames=without_alpha(crate_views.frames, (0.1, 0.5, 0.9)))
    lifted = lift_orbit(opaque, CELLS)
    np.testing.assert_allclose(lifted.extent, crate.extent, atol=2 * CELL)


@pytest.mark.slow
def test_opaque_views_on_white_beside_one_with_alpha_lift_to_the_same_mesh(crate: Mesh, crate_views: Orbit) -> None:
    """Models without alpha give such orbits: the picture is cut out, the views that they made are not."""
    opaque = replace(crate_views, frames=beside(crate_views.frames, without_alpha(crate_views.frames, (1, 1, 1))))
    lifted = lift_orbit(opaque, CELLS)
    assert volume_iou(lifted, crate) >= 0.95
    for side in (LEFT, RIGHT, FRONT, BACK, TOP):  # without white from the edges
        np.testing.assert_allclose(colour_of_side(lifted, side), colour_of_side(crate, side), atol=10)


def without_alpha(frames: np.ndarray, background: tuple[float, float, float]) -> np.ndarray:
    rgb = composite(frames, background)
    return np.concatenate([rgb, np.ones_like(rgb[..., :1])], axis=-1)


@pytest.mark.slow
def test_one_view_that_lost_half_the_object_does_not_halve_it(crate: Mesh, crate_views: Orbit) -> None:
    frames = crate_views.frames.copy()
    frames[5, :, :32] = 0
    lifted = lift_orbit(Orbit(frames, crate_views.cameras), CELLS)
    np.testing.assert_allclose(lifted.extent, crate.extent, atol=4 * CELL)


@pytest.mark.slow
def test_lifting_is_repeatable(crate: Mesh, crate_views: Orbit) -> None:
    again = lift_orbit(crate_views, CELLS)
    np.testing.assert_array_equal(again.vertices, crate.vertices)
    assert again.texture is not None
    assert crate.texture is not None
    np.testing.assert_array_equal(again.texture.pixels, crate.texture.pixels)


def with_alpha(orbit: Orbit, views: slice, alpha: float) -> Orbit:
    frames = orbit.frames.copy()
    frames[views, ..., 3] = alpha
    return replace(orbit, frames=frames)


def beside(first: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.concatenate([first[:1], others[1:]])


def test_what_cannot_be_lifted_is_refused_in_one_line(crate_views: Orbit) -> None:
    noise = np.random.default_rng(0).random(crate_views.frames.shape, dtype=np.float32)
    noise[..., 3] = 1
    squares = noise.copy()
    squares[:, 0] = 0  # a transparent row is alpha, and says nothing
    strangers = view_boxes([CRATE], static_orbit(3, 20, size_px=64)).cameras
    elsewhere = tuple(replace(camera, cx_px=camera.cx_px + 300 * k) for k, camera in enumerate(strangers))
    unposed = replace(strangers[0], world_from_cam=np.eye(4))
    cases = [
        (crate_views.select([0]), "at least 3"),
        (with_alpha(crate_views, slice(None), 0), "no view shows an object"),
        (with_alpha(crate_views, slice(4, 5), 0), "view 4 shows no object"),
        (replace(crate_views, frames=noise), "view 0 has neither transparency nor a plain background"),
        (replace(crate_views, frames=beside(crate_views.frames, noise)), "view 1 has neither transparency nor a plain"),
        (replace(crate_views, frames=beside(crate_views.frames, squares)), "fills the whole picture in 11 of 12 views"),
        (Orbit(crate_views.frames[[0, 4, 8]], elsewhere), "no common object"),
        (Orbit(crate_views.frames[[0, 4, 8]], (unposed,) * 3), "all cameras stand at one place"),
    ]
    for orbit, reason in cases:
        with pytest.raises(Mv3dError, match=reason) as caught:
            lift_orbit(orbit, CELLS)
        assert "\n" not in str(caught.value)
    with pytest.raises(Mv3dError, match="resolution 1000"):
        LiftSettings(resolution=1000)

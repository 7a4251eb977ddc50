"""Textures: charts fill the square without overlap, and the picture shows at its own resolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mv3d.cameras import static_orbit
from mv3d.lift import LiftSettings, lift_orbit
from mv3d.lift.raster import rasterize
from mv3d.mesh import Mesh
from mv3d.orbit import Facts, Orbit
from tests.mv3d.blocks import CRATE, view_boxes

VIEW_PX, PICTURE_PX = 64, 256


def _seen(mesh: Mesh, orbit: Orbit, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """What the input view's camera sees of the texture (S, S, 3), and where (S, S)."""
    camera = orbit.cameras[0].resized(size_px, size_px)
    pixels, depth = camera.project(mesh.vertices)
    seen = rasterize(pixels[mesh.faces], depth[mesh.faces], size_px, size_px)
    assert mesh.texture is not None
    colours = np.zeros((size_px, size_px, 3))
    uv = (mesh.texture.corner_uv[seen.faces] * seen.barycentric[:, :, None]).sum(axis=1)
    colours[seen.rows, seen.columns] = mesh.texture.at(uv) / 255
    hit = np.zeros((size_px, size_px), dtype=bool)
    hit[seen.rows, seen.columns] = True
    return colours, hit


@pytest.fixture(scope="module")
def striped() -> Orbit:
    """Views of a crate, and a picture of it with stripes that are finer than the views' pixels."""
    orbit = view_boxes([CRATE], static_orbit(12, 20, size_px=VIEW_PX))
    picture = view_boxes([CRATE], static_orbit(1, 20, size_px=PICTURE_PX)).frames[0]
    picture[..., :3] = ((np.arange(PICTURE_PX) // 4) % 2)[None, :, None]
    return replace(orbit, facts=Facts(input_index=0), picture=picture)


@pytest.fixture(scope="module")
def crate(striped: Orbit) -> Mesh:
    return lift_orbit(striped, LiftSettings(method="hull", resolution=48, texture_px=512))


@pytest.mark.slow
def test_the_texture_has_the_size_asked_for_and_its_charts_fill_it_without_overlap(crate: Mesh):
    assert crate.texture is not None
    assert crate.texture.pixels.shape == (512, 512, 3)
    a, b, c = np.moveaxis(crate.texture.corner_uv * 512, 1, 0)
    area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum() / 2
    corners = crate.texture.corner_uv * [512, -512] + [0, 512]
    covered = len(rasterize(corners, np.ones(crate.faces.shape), 512, 512).rows)
    assert covered == pytest.approx(area, rel=0.01)  # overlaps would cover less than the triangles' area
    assert area > 0.5 * 512**2


@pytest.mark.slow
def test_the_picture_shows_at_its_own_resolution(crate: Mesh, striped: Orbit):
    assert striped.picture is not None
    colours, hit = _seen(crate, striped, PICTURE_PX)
    inside = hit & (striped.picture[..., 3] > 0.5)
    wrong = (colours - striped.picture[..., :3])[inside]
    assert -10 * np.log10((wrong**2).mean()) > 10  # stripes of 4 pixels; grey in their place has 6 dB
    blurred, _ = _seen(
        lift_orbit(replace(striped, picture=None), LiftSettings(method="hull", resolution=48)), striped, PICTURE_PX
    )
    assert np.ptp(blurred[inside].mean(axis=1)) < np.ptp(colours[inside].mean(axis=1))


def test_what_the_picture_does_not_show_keeps_the_views_colours(crate: Mesh, striped: Orbit):
    without = lift_orbit(replace(striped, picture=None), LiftSettings(method="hull", resolution=48, texture_px=512))
    centres = crate.vertices[crate.faces].mean(axis=1)
    back = centres[:, 1] > CRATE.high[1] - 0.02
    assert crate.texture is not None
    assert without.texture is not None
    uv = crate.texture.corner_uv[back].mean(axis=1)
    np.testing.assert_array_equal(crate.texture.at(uv), without.texture.at(uv))

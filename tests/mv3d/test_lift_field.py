"""Fitting a surface to colours: what silhouettes alone cannot tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from mv3d.cameras import static_orbit
from mv3d.lift import LiftSettings, lift_orbit
from mv3d.lift.raster import render_depth
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit
from tests.mv3d.blocks import Box, view_boxes

FIELD = LiftSettings(resolution=36, faces=5000)
WALL, FLOOR, RIM = 0.1, 0.05, 0.25
BIN = (
    Box((-0.35, -0.35, -0.25), (0.35, 0.35, FLOOR)),
    Box((-0.35, -0.35, FLOOR), (-0.35 + WALL, 0.35, RIM)),
    Box((0.35 - WALL, -0.35, FLOOR), (0.35, 0.35, RIM)),
    Box((-0.35, -0.35, FLOOR), (0.35, -0.35 + WALL, RIM)),
    Box((-0.35, 0.35 - WALL, FLOOR), (0.35, 0.35, RIM)),
)
"""Open at the top: no silhouette shows the hollow."""


@pytest.fixture(scope="module")
def views() -> Orbit:
    return view_boxes(BIN, static_orbit(12, 40, size_px=48))


@pytest.fixture(scope="module")
def bin_mesh(views: Orbit) -> Mesh:
    return lift_orbit(views, FIELD)


def top_above_the_middle(mesh: Mesh) -> float:
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    hits, _, _ = body.ray.intersects_location([[0.01, 0.02, 2.0]], [[0.0, 0.0, -1.0]])
    return float(hits[:, 2].max())


def mean_silhouette_iou(mesh: Mesh, views: Orbit) -> float:
    ious = []
    for camera, frame in zip(views.cameras, views.frames, strict=True):
        mine, true = np.isfinite(render_depth(mesh, camera)), frame[..., 3] > 0.5
        ious.append((mine & true).sum() / (mine | true).sum())
    return float(np.mean(ious))


@pytest.mark.slow
def test_colours_show_the_hollow_that_no_silhouette_shows(bin_mesh: Mesh, views: Orbit) -> None:
    hull = lift_orbit(views, replace(FIELD, method="hull"))
    assert top_above_the_middle(hull) == pytest.approx(RIM, abs=0.02)
    # Sides of one plain colour each tell little of how deep: it comes as far as it comes.
    assert FLOOR - 0.05 < top_above_the_middle(bin_mesh) < RIM - 0.05


@pytest.mark.slow
def test_the_surface_is_closed_and_has_the_views_silhouettes(bin_mesh: Mesh, views: Orbit) -> None:
    assert bin_mesh.is_watertight
    assert mean_silhouette_iou(bin_mesh, views) >= 0.95


def test_faces_and_texture_are_no_larger_than_asked(views: Orbit) -> None:
    small = lift_orbit(views, replace(FIELD, method="hull", faces=300, texture_px=128))
    assert len(small.faces) <= 300
    assert small.is_watertight
    assert small.texture is not None
    assert max(small.texture.pixels.shape) <= 192  # charts are packed as well as they can be


@pytest.mark.slow
def test_a_preview_is_a_coarse_closed_mesh_with_the_views_silhouettes(views: Orbit) -> None:
    steps: list[tuple[str, int, int]] = []
    mesh = lift_orbit(views, LiftSettings().preview(), lambda *step: steps.append(step))
    assert steps == [("surface", 0, 1), ("texture", 0, 1)]  # nothing is fitted
    assert mesh.is_watertight
    assert len(mesh.faces) <= 4000
    assert mean_silhouette_iou(mesh, views) >= 0.95


@pytest.mark.slow
def test_one_view_that_is_darker_and_one_that_is_wrong_do_not_spoil_the_shape(views: Orbit) -> None:
    frames = views.frames.copy()
    frames[3, ..., :3] *= 0.7
    frames[9] = frames[9, :, ::-1, [2, 0, 1, 3]].transpose(1, 2, 0)  # mirrored, channels exchanged
    mesh = lift_orbit(replace(views, frames=frames), FIELD)
    assert FLOOR - 0.05 < top_above_the_middle(mesh) < RIM - 0.05
    assert mean_silhouette_iou(mesh, views) >= 0.9


@pytest.mark.slow
def test_fitting_is_repeatable_and_reports_its_steps(views: Orbit) -> None:
    seen: list[tuple[str, int, int]] = []
    few = views.select(range(0, 12, 2)).resized(24)
    coarse = replace(FIELD, resolution=16)
    once = lift_orbit(few, coarse, lambda *step: seen.append(step))
    again = lift_orbit(few, coarse)
    np.testing.assert_array_equal(again.vertices, once.vertices)
    (*fit, texture) = seen
    assert [done for _, done, _ in fit] == list(range(fit[-1][2] + 1))
    assert {stage for stage, _, _ in fit} == {"surface"}
    assert texture == ("texture", 0, 1)

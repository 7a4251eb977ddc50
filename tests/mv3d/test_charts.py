"""Charts of a texture: few, as little stretched as can be, and none on itself or on another."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from mv3d.lift.charts import Charts
from mv3d.lift.flattening import SurfaceTriangles
from mv3d.lift.raster import rasterize
from mv3d.lift.unwrap import unwrap
from mv3d.mesh import Mesh

SIZE_PX = 512


def strip(places: np.ndarray) -> Mesh:
    """A surface of (N + 1, M + 1, 3) places, all of whose quads are two triangles; N M quads, row by row."""
    rows, columns = np.array(places.shape[:2]) - 1
    at = np.arange(rows * (columns + 1)).reshape(rows, columns + 1)[:, :-1].ravel()
    quads = np.stack([at, at + 1, at + columns + 2, at + columns + 1], axis=1)
    return Mesh(places.reshape(-1, 3), quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3))


def cut(mesh: Mesh, chart: np.ndarray) -> tuple[SurfaceTriangles, Charts]:
    """The surface with charts (F,), in each of which every triangle lies as it is, on no other."""
    surface = SurfaceTriangles.of(mesh)
    return surface, Charts(chart, surface.corners)


def side_px(plane: np.ndarray) -> np.ndarray:
    return np.abs(np.roll(plane, -1, axis=1) - plane)


def overlapping_share(corners_px: np.ndarray, size_px: int) -> float:
    """How much less triangles (F, 3, 2) cover than their area."""
    one, other = corners_px[:, 1] - corners_px[:, 0], corners_px[:, 2] - corners_px[:, 0]
    area = np.abs(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]).sum() / 2
    return 1 - len(rasterize(corners_px, np.ones((len(corners_px), 3)), size_px, size_px).rows) / area


def drawn(charts: Charts) -> np.ndarray:
    """Corners (F, 3, 2) in a picture of SIZE_PX, every chart in its own place."""
    apart = charts.apart()
    low = apart.min(axis=(0, 1))
    return (apart - low) * (SIZE_PX / (apart.max(axis=(0, 1)) - low).max())


def test_triangles_of_a_plane_become_one_chart_that_is_the_plane():
    x, y = np.meshgrid(np.linspace(0, 3, 10), np.linspace(0, 2, 7), indexing="ij")
    plane = strip(np.stack([x, y, 0.3 * x], axis=-1))
    surface, charts = cut(plane, np.arange(len(plane.faces)))
    (joined,) = charts.joined(surface, [0.2])
    assert set(joined.chart) == {0}
    np.testing.assert_allclose(side_px(joined.plane), side_px(surface.corners), atol=1e-6)
    assert abs(overlapping_share(drawn(joined), SIZE_PX)) < 0.01


def test_what_can_only_lie_flat_cut_open_stays_cut():
    around = np.linspace(0, 2 * np.pi, 25)
    tube = strip(
        np.stack(np.broadcast_arrays(np.cos(around)[:, None], np.sin(around)[:, None], [0, 0.4, 0.8]), axis=-1)
    )
    tube = Mesh(tube.vertices.round(9), tube.faces).welded()  # closed all around
    surface, charts = cut(tube, np.arange(len(tube.faces)) // 4)  # 24 slats
    (joined,) = charts.joined(surface, [0.2])
    assert 2 <= len(set(joined.chart)) <= 4
    np.testing.assert_allclose(side_px(joined.plane), side_px(surface.corners), rtol=0.05)
    assert abs(overlapping_share(drawn(joined), SIZE_PX)) < 0.01


def test_a_chart_does_not_grow_on_to_itself():
    """A ramp that winds one and a half times around is flat everywhere, and would lie on itself."""
    turn = np.linspace(0, 3 * np.pi, 49)[:, None]
    radius = np.array([1.0, 1.5, 2.0])
    ramp = strip(np.stack(np.broadcast_arrays(radius * np.cos(turn), radius * np.sin(turn), 0.05 * turn), axis=-1))
    surface, charts = cut(ramp, np.arange(len(ramp.faces)) // 4)
    (joined,) = charts.joined(surface, [0.2])
    assert 2 <= len(set(joined.chart)) <= 4
    assert abs(overlapping_share(drawn(joined), SIZE_PX)) < 0.01


@pytest.fixture(scope="module")
def rough() -> Mesh:
    """A ring with bumps: xatlas by itself cuts it into 120 charts."""
    ring = trimesh.creation.torus(0.4, 0.18, 64, 32)
    bumps = 1 + 0.03 * np.random.default_rng(0).normal(size=(len(ring.vertices), 1))
    return Mesh(np.asarray(ring.vertices) * bumps, np.asarray(ring.faces))


def test_a_rough_surface_has_few_charts_that_fill_the_texture(rough: Mesh):
    uv = unwrap(rough, SIZE_PX)
    corners = np.concatenate([rough.faces.reshape(-1, 1), uv.reshape(-1, 2)], axis=1)
    vertex = np.unique(corners, axis=0, return_inverse=True)[1].reshape(-1, 3)
    links = trimesh.graph.face_adjacency(vertex)
    charts = trimesh.graph.connected_component_labels(links, node_count=len(vertex))
    one, other = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    area = (one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]) / 2
    whole = np.bincount(charts, area)
    assert len(whole) <= 20
    assert (area * whole[charts] > 0).all()  # none is turned over; xatlas may lay down a whole chart mirrored
    area = np.abs(area)
    assert area.sum() > 0.55
    assert abs(overlapping_share(uv * [SIZE_PX, -SIZE_PX] + [0, SIZE_PX], SIZE_PX)) < 0.01
    ratio = area / SurfaceTriangles.of(rough).area
    low, high = np.percentile(ratio / np.median(ratio), [1, 99])
    assert low > 0.5
    assert high < 2

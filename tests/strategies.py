"""Cameras for property tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from mv3d.cameras import Camera


def spherical_cameras() -> st.SearchStrategy[Camera]:
    return st.builds(
        Camera.looking_at_origin,
        st.floats(-720, 720),
        st.floats(-89, 89),
        st.floats(0.1, 50),
        size_px=st.tuples(st.integers(3, 12), st.integers(3, 12)),
        fov_deg=st.floats(5, 120),
    )


@st.composite
def any_cameras(draw: st.DrawFn) -> Camera:
    """Cameras off their sphere's axis: principal points anywhere in the picture, centres shifted off the orbit."""
    camera = draw(spherical_cameras())
    shift = draw(st.tuples(*[st.floats(-3, 3)] * 3))
    world_from_cam = camera.world_from_cam.copy()
    world_from_cam[:3, 3] += shift
    cx_px, cy_px = draw(st.floats(0, camera.width_px)), draw(st.floats(0, camera.height_px))
    return replace(camera, world_from_cam=world_from_cam, cx_px=cx_px, cy_px=cy_px)


def assert_same(actual: Camera, expected: Camera, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(actual.world_from_cam, expected.world_from_cam, rtol=0, atol=atol)
    lengths = [(c.focal_px, c.cx_px, c.cy_px) for c in (actual, expected)]
    np.testing.assert_allclose(*lengths, rtol=0, atol=atol)
    assert (actual.width_px, actual.height_px) == (expected.width_px, expected.height_px)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mv3d.depth import load_depth, save_depth
from mv3d.errors import Mv3dError


def test_round_trip_is_exact_to_half_a_step(tmp_path: Path):
    depth = np.random.default_rng(0).uniform(0, 6, (3, 5, 7)).astype(np.float32)
    depth[0, :2] = 0
    save_depth(depth, tmp_path)
    loaded = load_depth(tmp_path)
    assert loaded is not None
    assert np.abs(loaded - depth).max() <= 0.51e-4
    assert np.array_equal(loaded == 0, depth == 0)


def test_no_maps_are_none_and_saving_replaces(tmp_path: Path):
    assert load_depth(tmp_path) is None
    save_depth(np.ones((3, 2, 2), np.float32), tmp_path)
    save_depth(np.full((2, 2, 2), 2, np.float32), tmp_path)
    loaded = load_depth(tmp_path)
    assert loaded is not None
    assert loaded.shape == (2, 2, 2)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 7.0])
def test_what_does_not_fit_is_refused(tmp_path: Path, bad: float):
    with pytest.raises(ValueError, match="depth must lie in"):
        save_depth(np.full((1, 2, 2), bad, np.float32), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", [0, 20, 60])
def test_a_damaged_map_is_one_line(tmp_path: Path, left: int):
    save_depth(np.random.default_rng(0).uniform(0, 6, (2, 16, 16)).astype(np.float32), tmp_path)
    path = tmp_path / "depth/001.png"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(Mv3dError, match=r"001\.png is no readable picture") as caught:
        load_depth(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_colour_picture_is_no_depth_map(tmp_path: Path):
    save_depth(np.ones((2, 2, 2), np.float32), tmp_path)
    Image.new("RGB", (2, 2)).save(tmp_path / "depth" / "001.png")
    with pytest.raises(Mv3dError, match=r"001\.png is no depth map"):
        load_depth(tmp_path)

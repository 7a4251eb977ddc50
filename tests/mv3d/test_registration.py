"""Pictures of one object, each with a scale and a place of its own, come to one frame."""

from __future__ import annotations

import numpy as np
import pytest

from mv3d.cameras import Camera
from mv3d.image import FILL, crop, frame_picture
from mv3d.more_pictures import frame_together
from mv3d.pixels import resize
from mv3d.registration import register
from tests.mv3d.blocks import TABLE, view_boxes

SCALES = (1.0, 0.6, 1.3, 0.8)


def _pictures(poses) -> tuple[np.ndarray, list[np.ndarray]]:
    """True frames of a low, long table, and each at a scale and place of its own."""
    truth = view_boxes(TABLE, [Camera.looking_at_origin(*pose, size_px=160) for pose in poses]).frames
    moved = []
    for k, frame in enumerate(truth):
        size_px = round(160 * SCALES[k])
        moved.append(np.pad(resize(frame, size_px, size_px), ((30 * k, 11), (5, 17 * k), (0, 0))))
    return truth, moved


@pytest.mark.parametrize(
    "poses",
    [
        [(0, 0), (90, 0)],
        [(0, 15), (90, 15), (180, 15), (270, 15)],
        [(0, 10), (60, 30)],
        [(0, 5), (180, 5)],
        [(0, 10), (0, 60)],
    ],
)
def test_pictures_come_to_one_scale_and_middle(poses):
    _, moved = _pictures(poses)
    framings = register(moved, poses)
    sides = np.array([framing.half for framing in framings]) / SCALES[: len(poses)]
    np.testing.assert_allclose(sides / sides[0], 1, atol=0.02)
    # The middles of all frames are one point of space, seen by their cameras: the new world's origin.
    rows, wanted = [], []
    for k, (framing, pose) in enumerate(zip(framings, poses, strict=True)):
        right, up, _ = Camera.looking_at_origin(*pose, size_px=2).world_from_cam[:3, :3].T
        rows += [right, up]
        x_px, y_px = framing.x / SCALES[k] - 5 / SCALES[k] - 80, framing.y / SCALES[k] - 30 * k / SCALES[k] - 80
        wanted += [x_px / 80, -y_px / 80]
    point = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    assert np.abs(np.array(rows) @ point - wanted).max() < 0.04
    # Nothing leaves the frame, and the widest of them fills it.
    crops = [crop(rgba, framing, 160) for rgba, framing in zip(moved, framings, strict=True)]
    rows_px, columns_px = np.nonzero(np.max([frame[..., 3] for frame in crops], axis=0) > 0.5)
    reach = np.hypot(rows_px + 0.5 - 80, columns_px + 0.5 - 80).max() / 80
    assert FILL - 0.04 < reach < FILL + 0.02


def test_one_picture_is_framed_as_ever():
    _, moved = _pictures([(0, 10)])
    together = frame_together(moved, [(0.0, 10.0)])
    np.testing.assert_array_equal(together.at(64)[0], frame_picture(moved[0], 64))


def test_pictures_that_are_framed_already_stay_so():
    truth, _ = _pictures([(0, 10), (90, 10)])
    together = frame_together(list(truth), [(0, 10), (90, 10)], keep_framing=True)
    np.testing.assert_array_equal(together.at(160), truth)
    assert together.own_px() == 160

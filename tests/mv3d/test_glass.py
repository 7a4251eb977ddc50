"""Glass in a picture is a surface, too: what is half transparent with the object around it."""

from __future__ import annotations

import torch

from mv3d.model.posed_picture import panes_closed


def _plate() -> torch.Tensor:
    """An opaque plate of 40 pixels with a window of glass and a gap, whose edge is soft."""
    picture = torch.zeros(4, 64, 64)
    picture[:3] = 0.5
    picture[3, 12:52, 12:52] = 1
    picture[3, 18:28, 18:46] = 0.4
    picture[3, 34:44, 18:46] = 0.3
    picture[3, 35:43, 19:45] = 0
    return picture


def test_a_window_is_closed_and_a_gap_with_a_soft_edge_stays() -> None:
    picture = _plate()
    closed = panes_closed(picture)
    assert (closed[3, 18:28, 18:46] == 1).all()
    assert torch.equal(closed[3, 33:45, 17:47], picture[3, 33:45, 17:47])
    assert torch.equal(closed[:3], picture[:3])
    assert torch.equal(picture, _plate())  # what was given is left alone


def test_glass_without_an_object_around_it_stays_as_it_is() -> None:
    picture = torch.zeros(4, 64, 64)
    picture[3, 20:40, 20:40] = 0.4
    assert torch.equal(panes_closed(picture), picture)


def test_an_opaque_picture_and_its_soft_outline_stay_as_they_are() -> None:
    picture = torch.zeros(4, 64, 64)
    picture[3, 19:41, 19:41] = 0.4
    picture[3, 20:40, 20:40] = 1
    assert torch.equal(panes_closed(picture), picture)

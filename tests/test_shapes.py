"""What `tests.shapes` makes of signatures: without it, none of these would be noticed."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from mv3d.cameras import Camera
from mv3d.model.alpha import to_autoencoder
from mv3d.model.coarse import CoarseNet, sample_grid, unfold_voxels
from mv3d.model.conditioning import Conditions, drop_conditions
from mv3d.model.denoiser import weighted_error
from mv3d.model.drawing import filled_colours
from mv3d.model.frustum import axes
from mv3d.model.sampling import guidance_per_frame, karras_sigmas
from mv3d.model.surface import extract_field
from mv3d.orbit import make_sheet
from mv3d.pixels import composite, from_uint8, resize

CLIPS = torch.zeros(2, 3, 4, 8, 8)


def _conditions(clips: int = 2, frames: int = 3, angles: int = 2) -> Conditions:
    return Conditions(CLIPS[:, 0], torch.zeros(2, 1, 5), torch.zeros(clips, 1), torch.zeros(2, frames, angles), CLIPS)


@pytest.mark.parametrize(
    "call",
    [
        lambda: axes(torch.zeros(7, 3)),
        lambda: axes(torch.zeros(7, 2, dtype=torch.int64)),
        lambda: composite(np.ones((2, 8, 8, 3), dtype=np.float32)),
        lambda: from_uint8(np.ones((8, 8, 4))),
        lambda: make_sheet(np.zeros((8, 8, 3), dtype=np.uint8), 1),
        lambda: weighted_error(CLIPS, CLIPS[:, :2], torch.ones(2)),
        lambda: weighted_error(CLIPS, CLIPS, torch.ones(3)),
        lambda: to_autoencoder(torch.zeros(1, 3, 8, 8), 3),
        lambda: _conditions(clips=3),
        lambda: _conditions(frames=4),
        lambda: _conditions(angles=3),
        lambda: drop_conditions(_conditions(), torch.ones(2)),
        lambda: filled_colours(torch.zeros(1, 3, 8, 8)),
        lambda: sample_grid(torch.zeros(2, 8, 4, 4, 4), torch.zeros(3, 5, 3)),
        lambda: unfold_voxels(torch.zeros(1, 8, 4, 4, 3), 2),
        lambda: extract_field(None, None, torch.zeros(8, 9), 0.0),
        lambda: CoarseNet.estimate_elevation(None, torch.zeros(2, 3, 8, 8)),
    ],
)
def test_arrays_of_another_shape_or_kind_are_refused(call) -> None:
    with pytest.raises(TypeCheckError):
        call()


def test_those_that_signatures_promise_pass_and_ints_may_be_floats() -> None:
    assert axes(torch.zeros(7, 5, 2)).shape == (7, 5, 3, 3)
    assert resize(np.ones((6, 4, 4), dtype=np.float32), 2, 3).shape == (3, 2, 4)
    assert karras_sigmas(3, 1, 80).shape == (4,)
    assert unfold_voxels(torch.zeros(1, 16, 3, 3, 3), 2).shape == (1, 2, 6, 6, 6)
    assert guidance_per_frame("linear", 1, 3, 5).shape == (5,)
    assert drop_conditions(_conditions(), torch.ones(2, dtype=torch.bool)).poses is not None
    camera = Camera.looking_at_origin(10, 20, 2, size_px=8)
    pixels, depth = camera.project(np.zeros((2, 5, 3)))
    assert (pixels.shape, depth.shape) == ((2, 5, 2), (2, 5))
    assert camera.project((0, 0, 0))[1] == pytest.approx(2)


def test_a_class_that_checks_its_own_fields_keeps_its_words() -> None:
    with pytest.raises(ValueError, match="must be a finite 4x4 matrix"):
        Camera(np.eye(3), 8, 8, 8, 4, 4)

"""What decoded frames are compared with, where their shape is a coarse view's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from finetune.decoded_loss import DecodedLoss
from finetune.diffusion_config import DiffusionStage
from finetune.loop_config import LoopConfig
from mv3d.model.autoencoder import RgbaAutoencoder

SIZE_PX = 32


class Mean(nn.Module):
    """A stand-in for LPIPS: some distance of pictures."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3))


@pytest.fixture
def loss() -> DecodedLoss:
    config = DiffusionStage(LoopConfig(steps=1, batch_size=1, learning_rate=1e-3), lpips_weight=1.0, pixel_weight=1.0)
    return DecodedLoss(config, RgbaAutoencoder((8, 16)), Mean(), None)


def frame(columns: slice, grey: float) -> Tensor:
    """An object of one grey in some columns of a white picture; (1, 4, S, S)."""
    made = torch.ones(1, 4, SIZE_PX, SIZE_PX)
    made[:, 3] = 0
    made[:, :3, :, columns], made[:, 3, :, columns] = grey, 1.0
    return made


def test_a_surface_in_the_wrong_place_is_not_whitened(loss: DecodedLoss):
    view, truth = frame(slice(0, 16), 0.5), frame(slice(8, 24), 0.5)
    assert loss.of_frames(view.clone(), truth, view).frames == 0  # though neither picture is the other
    assert loss.of_frames(view.clone(), truth).frames > 0.1
    whitened = view.clone()
    whitened[:, :3, :, :8] = 1
    assert loss.of_frames(whitened, truth, view).frames > 0.01


def test_the_true_colours_are_learnt_where_both_shapes_agree_and_the_view_s_are_kept_elsewhere(loss: DecodedLoss):
    view, truth = frame(slice(0, 16), 0.5), frame(slice(8, 24), 0.25)
    output = view.clone().requires_grad_()
    loss.of_frames(output, truth, view).frames.backward()
    pull = output.grad[0, :3].abs().amax(dim=(0, 1))  # of each column
    assert (pull[8:16] > 0).all()
    assert (pull[:8] == 0).all()
    assert (pull[16:] == 0).all()
    best = frame(slice(0, 16), 0.5)
    best[:, :3, :, 8:16] = 0.25
    assert loss.of_frames(best, truth, view).frames == 0

from __future__ import annotations

import numpy as np
import pytest
import torch

from mv3d.model.alpha import on_white, premultiplied, straight, to_autoencoder
from mv3d.pixels import composite


@pytest.fixture
def rgba() -> torch.Tensor:
    """Two orbits of three frames, some of whose pixels are empty, and some full."""
    frames = torch.rand(2, 3, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    frames[:, :, 3] = (2 * frames[:, :, 3] - 0.5).clamp(0, 1)
    return frames


def test_on_white_is_as_pictures_are_composited_and_autoencoders_read_them(rgba: torch.Tensor):
    expected = composite(rgba.movedim(-3, -1).numpy())
    np.testing.assert_allclose(on_white(rgba).movedim(-3, -1).numpy(), expected, atol=1e-7)
    torch.testing.assert_close(on_white(rgba[0]) * 2 - 1, to_autoencoder(rgba[0], 3), atol=1e-6, rtol=0)


def test_straight_alpha_comes_back_from_premultiplied(rgba: torch.Tensor):
    alpha = rgba[:, :, 3:]
    back = straight(premultiplied(rgba))
    assert 0 < (alpha == 0).float().mean() < 0.5
    torch.testing.assert_close(back[:, :, :3], torch.where(alpha == 0, 0, rgba[:, :, :3]), atol=1e-3, rtol=0)
    assert torch.equal(back[:, :, 3:], alpha)
    mixed = straight(premultiplied(rgba).mean(dim=-1, keepdim=True))  # hidden colours do not bleed into a mean
    hidden = torch.where(alpha == 0, 1 - rgba, rgba)
    hidden[:, :, 3:] = alpha
    torch.testing.assert_close(straight(premultiplied(hidden).mean(dim=-1, keepdim=True)), mixed)


def test_a_colour_where_there_is_nearly_nothing_does_not_blow_up():
    faint = torch.tensor([1e-6, 1e-6, 1e-6, 1e-9])[:, None, None]
    assert straight(faint)[:3].max() <= 0.01 + 1e-6

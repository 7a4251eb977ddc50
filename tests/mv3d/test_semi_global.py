"""Rays that meet an object agree with their neighbours where they are unsure, and not where they are sure."""

from __future__ import annotations

import pytest
import torch

from mv3d.model.semi_global import agreed_bins

SIZE, BINS = 48, 32


def _post(left: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The places of the rays of an upright post, three wide and forty high."""
    row, column = torch.meshgrid(torch.arange(4, 44), torch.arange(left, left + 3), indexing="ij")
    return row.reshape(-1), column.reshape(-1)


def _undecided(count: int, one: int, other: int, seed: int, lead: float = 0.8) -> torch.Tensor:
    """Rays each of which may meet either of two bins; ``one`` is a little likelier in the mean, not for every ray."""
    noise = torch.randn(count, BINS, generator=torch.Generator().manual_seed(seed))
    logits = -6 + 0.3 * noise
    logits[:, one] = -1 + lead + noise[:, one]
    logits[:, other] = -1 + noise[:, other]
    return logits


@pytest.mark.parametrize("seed", range(5))
def test_a_post_s_rays_meet_the_place_that_is_likeliest_for_all_of_them(seed: int):
    row, column = _post(20)
    logits = _undecided(len(row), 8, 22, seed)
    alone = logits.argmax(dim=1)
    assert 0.15 < (alone == 22).float().mean() < 0.45  # by themselves they would jump to and fro
    assert (agreed_bins(logits, row, column, SIZE) - 8).abs().max() < 0.5


def test_posts_side_by_side_do_not_bind_each_other():
    rows, columns = zip(_post(10), _post(16), strict=True)
    logits = torch.cat([_undecided(120, 6, 24, 0), _undecided(120, 24, 6, 1)])
    met = agreed_bins(logits, torch.cat(rows), torch.cat(columns), SIZE)
    assert (met[:120] - 6).abs().max() < 0.5
    assert (met[120:] - 24).abs().max() < 0.5


def test_where_the_field_is_sure_places_jump():
    row, column = _post(20)
    logits = torch.full((len(row), BINS), -8.0)
    upper = row < 24
    logits[upper, 5], logits[~upper, 25] = 8.0, 8.0
    met = agreed_bins(logits, row, column, SIZE)
    assert (met[upper] - 5).abs().max() < 0.5
    assert (met[~upper] - 25).abs().max() < 0.5


def test_a_slope_is_followed_between_bins():
    row, column = _post(20)
    place = 6 + (row - 4) * 0.4
    bins = torch.arange(BINS, dtype=torch.float32)
    logits = 6 - 4 * (bins - place[:, None]).abs()
    assert (agreed_bins(logits, row, column, SIZE) - place).abs().mean() < 0.3

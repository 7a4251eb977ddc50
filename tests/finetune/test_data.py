"""Drawing and caching: the same data for the same seed, whatever happened before."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.cache import DiskCache, weights_digest
from finetune.data import draw
from mv3d.errors import Mv3dError


def test_every_epoch_draws_each_sample_once_in_its_own_order():
    drawn = np.concatenate([draw(3, 7, seed=5, step=k) for k in range(7)])  # three epochs of seven
    epochs = drawn.reshape(3, 7)
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(drawn, np.concatenate([draw(3, 7, seed=6, step=k) for k in range(7)]))


def make_row(value: float) -> tuple[list[int], Callable[[], torch.Tensor]]:
    """What makes a row, and how often it was asked to."""
    made = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.full((2, 3), value)

    return made, make


def test_cache_makes_a_row_once_even_across_processes(tmp_path: Path):
    made, make = make_row(0.5)
    first = DiskCache(tmp_path / "cache", "abcd", (2, 3)).get(1, make)
    again = DiskCache(tmp_path / "cache", "abcd", (2, 3)).get(1, make)
    assert len(made) == 1
    assert torch.equal(first, again)
    assert torch.equal(first, torch.full((2, 3), 0.5))


def test_cache_makes_a_row_again_that_was_made_of_something_else(tmp_path: Path):
    made, make = make_row(0.5)
    for keys in ("ab", "ab", "aB", "aBc"):  # an orbit was changed, then another added behind it
        for row in range(len(keys)):
            assert torch.equal(DiskCache(tmp_path / "cache", keys, (2, 3)).get(row, make), torch.full((2, 3), 0.5))
    assert len(made) == 4


@pytest.mark.parametrize(
    "damage", [lambda data: data[:9], lambda data: data[:20] + b"\1" + data[21:], lambda data: b""]
)
def test_cache_makes_a_row_again_that_was_changed_or_half_written(tmp_path: Path, damage):
    made, make = make_row(0.5)
    cache = DiskCache(tmp_path / "cache", "ab", (2, 3))
    for row in range(2):
        cache.get(row, make)
    path = tmp_path / "cache/rows.bin"
    path.write_bytes(damage(path.read_bytes()))
    assert all(torch.equal(cache.get(row, make), torch.full((2, 3), 0.5)) for row in range(2))
    assert len(made) > 2


def test_a_pipe_is_no_cache(tmp_path: Path):
    os.mkfifo(tmp_path / "rows.bin")
    with pytest.raises(Mv3dError, match=r"rows.bin is a pipe"):
        DiskCache(tmp_path, "ab", (2, 3))


def test_digest_changes_with_any_weight():
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    b.load_state_dict(a.state_dict())
    assert weights_digest(a) == weights_digest(b)
    with torch.no_grad():
        b.bias[0] += 1e-3
    assert weights_digest(a) != weights_digest(b)

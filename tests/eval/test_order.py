import numpy as np
import pytest

from eval.views.order import find_better_order, order_errors

NUM_VIEWS = 9


@pytest.fixture
def truths() -> list[np.ndarray]:
    """Views of six lopsided objects that change slowly with the turn, (9, 32, 32, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 32
    objects = []
    for _ in range(6):
        views = np.ones((NUM_VIEWS, 32, 32, 3), dtype=np.float32)
        for blob in range(4):
            phase, radius, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.35), rng.uniform(0.2, 0.8)
            colour = rng.random(3)
            for k in range(NUM_VIEWS):
                angle = phase + 2 * np.pi * k / NUM_VIEWS
                weight = np.exp(-(((x - 0.5 - radius * np.cos(angle)) / 0.12) ** 2 + ((y - height) / 0.12) ** 2))
                weight *= 0.6 + 0.4 * np.sin(angle)  # nearer is stronger, so that a turn has a direction
                views[k] += (weight[..., None] * (colour - views[k])).astype(np.float32)
            assert blob < 4
        objects.append(views)
    return objects


def _noisy(views: np.ndarray, seed: int) -> np.ndarray:
    return np.clip(views + 0.05 * np.random.default_rng(seed).standard_normal(views.shape), 0, 1).astype(np.float32)


def _found(truths, change) -> str | None:
    return find_better_order([order_errors(change(_noisy(t, k)), t) for k, t in enumerate(truths)])


def test_the_right_order_is_not_doubted(truths):
    assert _found(truths, lambda views: views) is None


def test_views_that_say_nothing_are_not_doubted(truths):
    assert _found(truths, lambda views: np.repeat(views[:1], NUM_VIEWS, axis=0)) is None
    assert _found(truths, np.ones_like) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: np.roll(v, 1, axis=0), "shifted by -1 view"),
        (lambda v: np.roll(v, -2, axis=0), "shifted by +2 views"),
        (lambda v: v[::-1], "the other way round, starting at view 8"),
        (lambda v: v[[0, *range(NUM_VIEWS - 1, 0, -1)]], "the other way round"),
        (lambda v: v[:, :, ::-1], "mirrored left to right"),
        (lambda v: v[[0, 5, 2, 3, 4, 1, 6, 7, 8]], "in another order (1→5, 5→1)"),
        (lambda v: np.roll(v, 3, axis=0)[:, :, ::-1], "shifted by -3 views and mirrored"),
    ],
    ids=["off by one", "shifted cameras", "reversed", "other turn", "mirrored", "swapped", "shifted and mirrored"],
)
def test_other_orders_are_named(truths, change, said):
    warning = _found(truths, change)
    assert warning is not None
    assert f"better {said}: " in warning
    assert "6 of 6 objects" in warning


def test_one_object_needs_a_clear_case(truths):
    assert find_better_order([order_errors(np.roll(truths[0], 2, axis=0), truths[0])]) is not None
    assert find_better_order([order_errors(_noisy(truths[0], 0), truths[0])]) is None

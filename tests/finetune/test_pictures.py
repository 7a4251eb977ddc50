from itertools import permutations

import torch

from finetune.pictures import augmented, recoloured, spotted


def _frames(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def _drawn(rgba: torch.Tensor, recolouring: torch.Tensor) -> tuple[tuple[int, ...], float]:
    """Which order of the channels and which power of them make one of the other, for all pixels alike."""
    for order in permutations(range(3)):
        powers = recolouring[..., :3, :, :].double().log() / rgba[..., order, :, :].double().log()
        if powers.max() - powers.min() < 1e-3:
            return order, powers.mean().item()
    raise AssertionError("no permutation and power make these colours")


def test_recolouring_is_one_order_and_one_power_for_all_frames_and_leaves_alpha():
    rgba, draws, generator = 0.1 + 0.8 * _frames(5, 4, 8, 6), [], torch.Generator().manual_seed(0)
    for _ in range(60):
        got = recoloured(rgba, generator)
        assert torch.equal(got[:, 3], rgba[:, 3])
        draws.append(_drawn(rgba, got))
    assert {order for order, _ in draws} == set(permutations(range(3)))
    assert 24 <= sum(order == (0, 1, 2) for order, _ in draws) <= 46  # half of them, and a sixth of the others
    logs = torch.tensor([power for _, power in draws]).log()
    assert abs(logs.mean()) < 0.15
    assert 0.15 < logs.std() < 0.35


def test_recolouring_keeps_black_and_white_in_range():
    ends = torch.tensor([0.0, 1.0]).expand(4, 1, 2)
    for seed in range(8):
        got = recoloured(ends, torch.Generator().manual_seed(seed))[:3]
        assert (got[..., 1] == 1).all()
        assert ((got[..., 0] > 0) & (got[..., 0] < 0.05)).all()


def test_every_sample_has_a_draw_of_its_own_and_about_half_are_mirrored():
    rgba = 0.1 + 0.8 * _frames(1, 4, 8, 6).expand(16, -1, -1, -1)
    got = augmented(rgba, torch.Generator().manual_seed(0))
    mirrored = [torch.equal(sample[3], rgba[0, 3].flip(-1)) for sample in got]
    assert 4 <= sum(mirrored) <= 12
    powers = set()
    for sample, flip in zip(got, mirrored, strict=True):
        upright = sample.flip(-1) if flip else sample
        assert torch.equal(upright[3], rgba[0, 3])
        powers.add(round(_drawn(rgba[0], upright)[1], 4))
    assert len(powers) == 16


def test_equal_draws_make_equal_pictures_whatever_torch_drew_before():
    rgba, made = _frames(4, 4, 8, 6), []
    for _ in range(2):
        made.append(augmented(rgba, torch.Generator().manual_seed(3)))
        torch.rand(7)
    assert torch.equal(*made)


def test_spots_are_of_one_colour_on_a_quarter_of_the_pictures_and_leave_alpha():
    pictures = _frames(200, 4, 32, 32)
    painted = spotted(pictures, torch.Generator().manual_seed(0))
    assert torch.equal(painted[:, 3], pictures[:, 3])
    changed = (painted != pictures).any(dim=1)
    spotty = changed.flatten(1).any(dim=1)
    assert 35 <= spotty.sum() <= 65
    white = 0
    for picture, where in zip(painted[spotty], changed[spotty], strict=True):
        colours = picture[:3, where]
        assert (colours == colours[:, :1]).all()
        assert where.float().mean() < 0.4
        white += bool((colours == 1).all())
    assert 0.3 < white / spotty.sum() < 0.7
    assert torch.equal(painted, spotted(pictures, torch.Generator().manual_seed(0)))

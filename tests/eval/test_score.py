from dataclasses import replace

import numpy as np
import pytest
import torch

from eval.metrics.images import MAX_PSNR_DB, psnr
from eval.metrics.lpips import Lpips
from eval.metrics.perceptual import compare_pictures
from eval.scoring.cache import ScoreCache
from eval.scoring.score import Candidate, ScoreSettings, check_same_views, on_background, score_objects, score_views
from eval.views.order import find_better_order, order_errors
from eval.views.views import Views
from mv3d.cameras import static_orbit
from mv3d.errors import Mv3dError
from mv3d.pixels import to_uint8


def _noisy(views: Views, sigma: float) -> Views:
    frames = views.frames.copy()
    frames[..., :3] += sigma * np.random.default_rng(9).standard_normal(frames[..., :3].shape)
    return replace(views, frames=np.clip(frames, 0, 1))


def test_views_against_themselves_are_perfect(make_views):
    truth = make_views(0)
    scores = score_views(truth, truth, [Lpips("alex")])
    perfect = {"psnr": MAX_PSNR_DB, "ssim": 1, "mse": 0, "psnr_object": MAX_PSNR_DB, "ssim_object": 1}
    perfect |= {"lpips_alex": 0, "silhouette_iou": 1}
    assert scores.keys() == perfect.keys()
    for key, value in perfect.items():
        np.testing.assert_allclose(scores[key], value, atol=1e-12)


def test_scores_fall_with_noise(make_views):
    truth = make_views(0)
    for key in ("psnr", "ssim", "psnr_object", "ssim_object"):
        means = [score_views(_noisy(truth, sigma), truth)[key].mean() for sigma in (0.02, 0.05, 0.1, 0.3)]
        assert np.diff(means).max() < 0


def test_hidden_colours_do_not_count_and_opaque_views_have_no_silhouette(make_views):
    truth = make_views(0)
    hidden = truth.frames.copy()
    hidden[hidden[..., 3] == 0] = (1, 0, 0, 0)
    assert (score_views(replace(truth, frames=hidden), truth)["psnr"] == MAX_PSNR_DB).all()
    opaque = np.concatenate([on_background(truth, ScoreSettings()), np.ones_like(truth.frames[..., :1])], axis=-1)
    scores = score_views(replace(truth, frames=opaque), truth)
    assert (scores["psnr"] == MAX_PSNR_DB).all()
    assert "silhouette_iou" not in scores
    assert "psnr_object" in scores  # the truth's silhouette is enough
    assert "psnr_object" not in score_views(truth, replace(truth, frames=opaque))


def test_each_view_is_scored_with_its_own_truth(make_views):
    truth = make_views(0)
    frames = truth.frames.copy()
    frames[3] = 1
    scores = score_views(replace(truth, frames=frames), truth)
    assert np.flatnonzero(scores["psnr"] < MAX_PSNR_DB).tolist() == [3]


def test_eight_bit_and_background_are_the_protocols(make_views):
    truth, other = make_views(0), _noisy(make_views(0), 0.1)
    settings = ScoreSettings(background=(0.0, 0.0, 0.0), eight_bit=True, ssim="uniform")
    scores = score_views(other, truth, settings=settings)
    on_black = [to_uint8(v.frames[..., :3] * v.frames[..., 3:]) / np.float32(255) for v in (other, truth)]
    np.testing.assert_allclose(scores["psnr"], psnr(*on_black), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: _select(v, [1, 2, 3, 4, 0]), "view 0 has azimuth 72.0 predicted, 0.0 true"),
        (lambda v: _select(v, [0, 4, 3, 2, 1]), "view 1 has azimuth 288.0 predicted, 72.0 true"),
        (lambda v: _select(v, [0, 1, 2]), "3 predicted views and 5 true ones"),
        (lambda v: Views(v.frames[:, ::2, ::2]), "16x16 px, true ones 32x32"),
        (lambda v: replace(v, cameras=static_orbit(5, 11, size_px=32)), "elevation 11.0 predicted, 10.0 true"),
        (lambda v: replace(v, input_index=1), "made from view 1, the truth names view 0"),
        (lambda v: _with_alpha(v, lambda a: a * (np.arange(5) != 2)[:, None, None]), "view 2 is transparent"),
        (lambda v: _with_alpha(v, lambda a: 1 - a), "alpha is inverted"),
    ],
    ids=["shifted", "reversed", "count", "size", "elevation", "input", "empty mask", "inverted mask"],
)
def test_other_views_are_errors_and_never_repaired(make_views, change, message):
    truth = make_views(0)
    with pytest.raises(Mv3dError, match=message):
        score_views(change(truth), truth)


def _select(views: Views, indices: list[int]) -> Views:
    assert views.cameras is not None
    return Views(views.frames[indices], tuple(views.cameras[k] for k in indices))


def _with_alpha(views: Views, change) -> Views:
    frames = views.frames.copy()
    frames[..., 3] = change(frames[..., 3])
    return replace(views, frames=frames)


def test_another_distance_is_no_other_view(make_views):
    truth = make_views(0)
    check_same_views(replace(truth, cameras=static_orbit(5, 10, 3.0, size_px=32)), truth)


# -------------------------------------------------------------------------------------------------
# What commonly goes wrong in other people's pictures moves the score by a known amount and direction.


@pytest.fixture
def smooth() -> Views:
    """Eight views of a shaded, half-transparent-edged ball with a stripe that turns, on transparent ground."""
    y, x = (np.mgrid[:64, :64] + 0.5) / 32 - 1
    inside = np.clip((0.8 - np.hypot(x, y)) * 16 + 0.5, 0, 1)
    height = np.sqrt(np.clip(0.64 - x * x - y * y, 0, 1))
    frames = np.zeros((8, 64, 64, 4), dtype=np.float32)
    for k in range(8):
        turn = 2 * np.pi * k / 8
        across = np.cos(turn) * x + np.sin(turn) * height
        frames[k, ..., 0] = 0.35 + 0.3 * np.tanh(6 * across)
        frames[k, ..., 1] = 0.4 + 0.3 * height
        frames[k, ..., 2] = 0.5 - 0.3 * np.tanh(6 * (across - 0.3))
        frames[k, ..., 3] = inside
    return Views(frames, static_orbit(8, 0.0, size_px=64), 0)


def _psnr(predicted: Views, truth: Views) -> float:
    return float(score_views(predicted, truth)["psnr"].mean())


def _mixed_linear(views: Views) -> Views:
    """SRGB pictures taken for linear light and encoded once more."""
    rgb = views.frames[..., :3]
    encoded = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return replace(views, frames=np.concatenate([encoded, views.frames[..., 3:]], -1).astype(np.float32))


def _premultiplied(views: Views) -> Views:
    return replace(
        views, frames=views.frames * np.append(views.frames[..., 3:].repeat(3, -1), 1 + 0 * views.frames[..., 3:], -1)
    )


def _on_grey(views: Views) -> Views:
    grey = on_background(views, ScoreSettings(background=(0.5, 0.5, 0.5)))
    return replace(views, frames=np.concatenate([grey, np.ones_like(grey[..., :1])], -1))


def _rolled(views: Views, step: int) -> Views:
    return Views(np.roll(views.frames, step, axis=0))  # plain folders: nobody tells the cameras


def _swapped(views: Views) -> Views:
    return Views(views.frames[[0, 5, 2, 3, 4, 1, 6, 7]])


def test_mutations_move_the_score_as_expected(smooth):
    nearly = _noisy(smooth, 0.02)
    fair = _psnr(nearly, smooth)
    assert fair > 30
    # Grey for white is off by 0.5 on the background: its share of the pixels says by how much in all.
    background = 1 - smooth.frames[..., 3].mean()
    assert _psnr(_on_grey(smooth), smooth) == pytest.approx(-10 * np.log10(0.25 * background), abs=0.4)
    # Premultiplied colours are darker at soft edges only; a second gamma is wrong on the whole object.
    edges, gamma = _psnr(_premultiplied(smooth), smooth), _psnr(_mixed_linear(smooth), smooth)
    assert MAX_PSNR_DB > edges > gamma
    assert gamma < 20
    assert score_views(_premultiplied(smooth), smooth)["silhouette_iou"].mean() == 1
    # An orbit off by one is better than one off by half a turn, and both are worse than the right one.
    assert fair > _psnr(_rolled(nearly, 1), smooth) > _psnr(_rolled(nearly, 4), smooth)
    assert fair > _psnr(_swapped(nearly), smooth)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: _rolled(v, 1), "shifted by -1 view"),
        (lambda v: _rolled(v, 3), "shifted by -3 views"),
        (_swapped, "in another order (1→5, 5→1)"),
    ],
    ids=["off by one", "shifted cameras", "swapped views"],
)
def test_mutations_of_the_order_are_warned_about(smooth, change, said):
    predicted = change(_noisy(smooth, 0.02))
    pictures = [on_background(views, ScoreSettings()) for views in (predicted, smooth)]
    warning = find_better_order([order_errors(*pictures)])
    assert warning is not None
    assert said in warning


def test_mutations_of_colour_are_no_question_of_order(smooth):
    for change in (_mixed_linear, _premultiplied, _on_grey):
        pictures = [on_background(views, ScoreSettings()) for views in (change(_noisy(smooth, 0.02)), smooth)]
        assert find_better_order([order_errors(*pictures)]) is None


# -------------------------------------------------------------------------------------------------
# Many at once.


class _CountingNetwork(Lpips):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__("alex")
        self.seen = 0

    def features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        self.seen += len(pictures)
        return super().features(pictures)


def test_many_at_once_give_the_scores_of_each_alone(make_views):
    sizes = [(5, 32), (5, 32), (3, 64), (4, 32)]
    truths = [make_views(seed, num_views=count, size_px=size) for seed, (count, size) in enumerate(sizes)]
    predictions = [{"a": _noisy(t, 0.1), "b": _noisy(t, 0.3)} for t in truths]
    candidates = [Candidate(str(k), t, p) for k, (t, p) in enumerate(zip(truths, predictions, strict=True))]
    network = _CountingNetwork()
    scored = list(score_objects(candidates, [network]))
    assert [s.name for s in scored] == ["0", "1", "2", "3"]
    for truth, predicted, result in zip(truths, predictions, scored, strict=True):
        for method, views in predicted.items():
            single = score_views(views, truth, [network])
            assert single.keys() == result.scores[method].keys()
            for key, values in single.items():
                np.testing.assert_allclose(result.scores[method][key], values, atol=1e-6)


def test_the_truth_and_repeated_pictures_are_looked_at_once(make_views):
    truth = on_background(make_views(0), ScoreSettings())
    network = _CountingNetwork()
    pictures = {"other": truth[::-1].copy(), "repeated": truth[[0] * 5], "white": np.ones_like(truth)}
    together = compare_pictures([network], truth, pictures)
    assert network.seen == 5 + 5 + 1 + 1
    for method, views in pictures.items():
        for k in range(5):
            one = compare_pictures([network], truth[[k]], {method: views[[k]]})
            assert together[method]["lpips_alex"][k] == pytest.approx(one[method]["lpips_alex"][0], abs=1e-6)


def test_known_scores_are_read_and_new_ones_made(make_views, tmp_path, monkeypatch):
    truths = [make_views(seed) for seed in range(3)]
    network = _CountingNetwork()
    cache = ScoreCache(tmp_path, [network], ScoreSettings())
    first = [Candidate(str(k), t, {"old": _noisy(t, 0.1)}) for k, t in enumerate(truths)]
    before = list(score_objects(first, [network], cache=cache))
    seen = network.seen
    again = list(score_objects(first, [network], cache=cache))
    assert network.seen == seen
    both = [Candidate(c.name, c.truth, c.predictions | {"new": _noisy(c.truth, 0.2)}) for c in first]
    mixed = list(score_objects(both, [network], cache=cache))
    assert network.seen == seen + 2 * 15  # the truth and the new method, not the old one
    for a, b, c in zip(before, again, mixed, strict=True):
        for key, values in a.scores["old"].items():
            np.testing.assert_array_equal(b.scores["old"][key], values)
            np.testing.assert_array_equal(c.scores["old"][key], values)
    black = ScoreSettings(background=(0.0, 0.0, 0.0))
    assert ScoreCache(tmp_path, [network], black).load(first[0].predictions["old"], truths[0]) is None
    monkeypatch.setattr("eval.versions.SCORING", 2)
    assert ScoreCache(tmp_path, [network], ScoreSettings()).load(first[0].predictions["old"], truths[0]) is None

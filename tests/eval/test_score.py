import json
from dataclasses import replace

import numpy as np
import pytest

from eval.__main__ import main
from eval.metrics.images import MAX_PSNR_DB, psnr
from eval.metrics.lpips import Lpips
from eval.score import Scores, score_folders, score_orbit
from eval.weights import FETCH_COMMAND
from mv3d.cameras import static_orbit
from mv3d.errors import Mv3dError
from mv3d.orbit import Orbit, load_orbit, save_orbit


def _noisy(orbit: Orbit, sigma: float) -> Orbit:
    frames = orbit.frames.copy()
    frames[..., :3] += sigma * np.random.default_rng(9).standard_normal(frames[..., :3].shape)
    return replace(orbit, frames=np.clip(frames, 0, 1))


def test_an_orbit_against_itself_is_perfect(make_orbit):
    truth = make_orbit(0)
    scores = score_orbit(truth, truth, [Lpips("alex")])
    perfect = Scores(psnr=MAX_PSNR_DB, ssim=1, lpips_alex=0, lpips_vgg=None, silhouette_iou=1)
    assert scores.mean == scores.mean_without_input == perfect


def test_scores_fall_with_noise(make_orbit):
    truth = make_orbit(0)
    means = [score_orbit(_noisy(truth, sigma), truth).mean for sigma in (0.02, 0.05, 0.1, 0.3)]
    assert np.diff([mean.psnr for mean in means]).max() < 0
    assert np.diff([mean.ssim for mean in means]).max() < 0


def test_views_are_on_white_and_hidden_colours_do_not_count(make_orbit):
    truth = make_orbit(0)
    hidden = truth.frames.copy()
    hidden[hidden[..., 3] == 0] = (1, 0, 0, 0)
    assert score_orbit(replace(truth, frames=hidden), truth).mean.psnr == MAX_PSNR_DB
    opaque = np.concatenate([truth.on(), np.ones_like(truth.frames[..., :1])], axis=-1)
    scores = score_orbit(replace(truth, frames=opaque), truth)
    assert scores.mean.psnr == MAX_PSNR_DB
    assert scores.mean.silhouette_iou is None


def test_mean_with_and_without_the_input_view(make_orbit):
    truth, other = make_orbit(0, input_index=2), make_orbit(1, input_index=None)
    values = psnr(other.on(), truth.on())
    scores = score_orbit(other, truth)
    assert scores.input_index == 2
    assert scores.mean.psnr == pytest.approx(values.mean())
    assert scores.mean_without_input is not None
    assert scores.mean_without_input.psnr == pytest.approx(np.delete(values, 2).mean())
    assert score_orbit(other, replace(truth, facts=other.facts)).mean_without_input is None


def test_each_view_is_scored_with_its_own_truth(make_orbit):
    truth = make_orbit(0)
    frames = truth.frames.copy()
    frames[3] = 1
    worse = [
        k for k, view in enumerate(score_orbit(replace(truth, frames=frames), truth).views) if view.psnr < MAX_PSNR_DB
    ]
    assert worse == [3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.select([1, 2, 3, 4, 0]), "view 0 has azimuth 72.0 predicted, 0.0 true"),
        (lambda o: o.select([0, 4, 3, 2, 1]), "view 1 has azimuth 288.0 predicted, 72.0 true"),
        (lambda o: o.select([0, 1, 2]), "3 predicted views and 5 true ones"),
        (lambda o: o.resized(16), "16x16 px, true ones 32x32"),
        (
            lambda o: replace(o, cameras=static_orbit(5, 11, size_px=32)),
            "view 0 has elevation 11.0 predicted, 10.0 true",
        ),
        (lambda o: replace(o, facts=replace(o.facts, input_index=1)), "made from view 1, the truth names view 0"),
    ],
    ids=["shifted", "reversed", "count", "size", "elevation", "input"],
)
def test_other_views_are_errors_and_never_repaired(make_orbit, change, message):
    truth = make_orbit(0)
    with pytest.raises(Mv3dError, match=message):
        score_orbit(change(truth), truth)


def test_another_distance_is_no_other_view(make_orbit):
    truth = make_orbit(0)
    farther = replace(truth, cameras=static_orbit(5, 10, 3.0, size_px=32))
    assert score_orbit(farther, truth).mean.psnr == MAX_PSNR_DB


@pytest.fixture
def folders(make_orbit, tmp_path):
    """Truths a, b, c/0 and predictions of a (noisy), b (too few views) and d."""
    for seed, name in enumerate(("a", "b", "c/0")):
        save_orbit(make_orbit(seed), tmp_path / "truth" / name, for_people=False)
    save_orbit(_noisy(make_orbit(0), 0.1), tmp_path / "pred" / "a", for_people=False)
    save_orbit(make_orbit(1, num_views=4), tmp_path / "pred" / "b", for_people=False)
    save_orbit(make_orbit(2), tmp_path / "pred" / "d", for_people=False)
    return tmp_path / "pred", tmp_path / "truth"


def test_folders_are_matched_by_relative_path(folders):
    pred, truth = folders
    scores = score_folders(pred, truth)
    assert scores.objects == {"a": score_orbit(load_orbit(pred / "a"), load_orbit(truth / "a"))}
    assert scores.missing == ("c/0",)
    assert scores.unknown == ("d",)
    assert list(scores.failed) == ["b"]
    assert "4 predicted views" in scores.failed["b"]


def test_two_orbits_are_scored_as_one(folders):
    pred, truth = folders
    assert list(score_folders(pred / "a", truth / "a").objects) == ["."]


def test_the_report_states_the_protocol_and_what_is_absent(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MV3D_CACHE", str(tmp_path / "no weights"))
    assert main(["score", *map(str, folders), "--json", str(tmp_path / "scores.json")]) == 0
    printed = capsys.readouterr().out
    for stated in (
        "32x32",
        "white",
        "sigma 1.5",
        "5",
        "by row",
        "absent: LPIPS alex, vgg",
        FETCH_COMMAND,
        "c/0: no prediction",
    ):
        assert stated in printed
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["protocol"]["orbits"] == 1
    assert written["protocol"]["views"] == "5"
    assert written["missing"] == ["c/0"]
    assert written["absent"] == {"lpips_alex": FETCH_COMMAND, "lpips_vgg": FETCH_COMMAND}
    views = [view["psnr"] for view in written["objects"]["a"]["views"]]
    assert written["mean"]["psnr"] == pytest.approx(np.mean(views))
    assert written["mean_without_input"]["psnr"] == pytest.approx(np.mean(views[1:]))


@pytest.mark.parametrize(
    ("pred", "truth", "message"),
    [
        ("nowhere", "truth", "nowhere is no folder"),
        ("pred/a", "truth", "two orbits or two folders"),
        ("pred/b", "truth/b", "4 predicted views and 5 true ones"),
        ("pred", "truth/c", "nothing to score"),
        ("empty", "truth", "holds no orbit folders"),
        ("broken", "truth/a", "cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_code_2(folders, tmp_path, capsys, pred, truth, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "transforms.json").write_text("{")
    assert main(["score", str(tmp_path / pred), str(tmp_path / truth), "--json", str(tmp_path / "s.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "s.json").exists()

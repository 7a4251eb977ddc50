import json
from dataclasses import replace

import numpy as np
import pytest

from eval.__main__ import main
from eval.baselines import mean_orbit, nearest_orbit, repeat_input, survey_training
from eval.compare import MEAN, NEAREST, REPEATED, gather_contest, score_contest
from eval.metrics.images import MAX_PSNR_DB
from eval.score import score_orbit
from eval.statistics import bootstrap_mean
from mv3d.errors import Mv3dError
from mv3d.orbit import from_uint8, save_orbit


def test_repeated_input_shows_it_everywhere_with_the_true_cameras(make_orbit):
    truth = make_orbit(0, input_index=2)
    repeated = repeat_input(truth)
    assert all(np.array_equal(frame, truth.frames[2]) for frame in repeated.frames)
    assert repeated.cameras == truth.cameras
    assert score_orbit(repeated, truth).views[2].psnr == MAX_PSNR_DB


@pytest.fixture
def training(make_orbit, tmp_path):
    """Four training orbits, as orbits and as folders."""
    orbits = [make_orbit(seed, input_index=None, elevation_deg=seed) for seed in range(4)]
    folders = [tmp_path / "training" / str(k) for k in range(4)]
    for orbit, folder in zip(orbits, folders, strict=True):
        save_orbit(orbit, folder, for_people=False)
    return orbits, folders


def test_mean_orbit_is_the_mean_of_the_views_on_white(training, make_orbit):
    orbits, folders = training
    truth = make_orbit(9, input_index=1)
    survey = survey_training(folders, truth.on()[[1]], truth)
    expected = np.mean([orbit.on() for orbit in orbits], axis=0)
    # The training orbits' first views are met at the input view.
    np.testing.assert_allclose(mean_orbit(survey, truth).on(), np.roll(expected, 1, axis=0), atol=1e-5)


def test_nearest_orbit_is_found_from_any_of_its_views_and_turned_to_it(training, make_orbit):
    orbits, folders = training
    noise = 0.05 * np.random.default_rng(0).standard_normal(orbits[0].on()[0].shape).astype(np.float32)
    inputs = np.stack([orbits[2].on()[3] + noise, orbits[0].on()[0]])
    truth = make_orbit(9)
    survey = survey_training(folders, inputs, truth)
    assert [(match.folder, match.start) for match in survey.matches] == [(folders[2], 3), (folders[0], 0)]
    assert survey.matches[0].error == pytest.approx(np.square(noise).mean(), abs=1e-6)
    found = nearest_orbit(survey.matches[0], truth)
    np.testing.assert_array_equal(found.frames, orbits[2].frames[[3, 4, 0, 1, 2]])
    assert found.cameras == truth.cameras


@pytest.mark.parametrize(
    ("number", "size", "message"), [(6, 32, "6 views of 32x32 px, the truth 5 views"), (5, 16, "5 views of 16x16 px")]
)
def test_training_orbits_of_another_kind_are_refused(make_orbit, tmp_path, number, size, message):
    save_orbit(make_orbit(0, num_views=number, size_px=size), tmp_path / "t", for_people=False)
    truth = make_orbit(1)
    with pytest.raises(Mv3dError, match=message):
        survey_training([tmp_path / "t"], truth.on()[[0]], truth)


def test_uneven_training_orbits_are_refused(make_orbit, tmp_path):
    save_orbit(make_orbit(0).select([0, 2, 1, 3, 4]), tmp_path / "t", for_people=False)
    truth = make_orbit(1)
    with pytest.raises(Mv3dError, match="not evenly spaced"):
        survey_training([tmp_path / "t"], truth.on()[[0]], truth)


def test_bootstrap():
    assert bootstrap_mean([3.0] * 5) == bootstrap_mean([3.0])
    values = np.random.default_rng(0).normal(7, 2, 400)
    estimate = bootstrap_mean(values.tolist())
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)


@pytest.fixture
def collection(make_orbit, tmp_path):
    """A rendered collection with a manifest, and predictions by two methods.

    The views of t0 to t4 differ more and more; t0 has two orbits. "good" is off by one grey level, "bad" is white.
    """
    root, lines = tmp_path / "orbits", []
    for k in range(5):
        split = "test"
        orbit = make_orbit(10 + k)
        frames = orbit.frames.copy()
        frames[..., :3] = frames[:1, ..., :3] * (1 - k / 5) + frames[..., :3] * k / 5
        frames = from_uint8(np.round(frames * 255).astype(np.uint8))
        for number in range(2 if k == 0 else 1):
            truth = replace(orbit, frames=frames)
            off = np.clip(frames - np.float32([1 / 255, 1 / 255, 1 / 255, 0]), 0, 1)
            white = np.ones_like(frames)
            save_orbit(truth, root / f"shop/t{k}" / str(number), for_people=False)
            save_orbit(replace(truth, frames=off), tmp_path / "good" / f"shop/t{k}" / str(number), for_people=False)
            save_orbit(replace(truth, frames=white), tmp_path / "bad" / f"shop/t{k}" / str(number), for_people=False)
        lines.append({"object_id": f"shop/t{k}", "split": split})
    for k in range(3):
        save_orbit(make_orbit(50 + k), root / f"shop/r{k}" / "0", for_people=False)
        lines.append({"object_id": f"shop/r{k}", "split": "train"})
    save_orbit(make_orbit(60, num_views=3), root / "shop/v" / "0", for_people=False)
    lines += [{"object_id": "shop/v", "split": "val"}, {"object_id": "shop/x", "failed": "flat"}]
    (root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_comparison_takes_the_test_split_and_means_over_an_objects_orbits(collection, tmp_path):
    contest = gather_contest(collection, collection, {"good": tmp_path / "good", "bad": tmp_path / "bad"})
    comparison = score_contest(contest)
    assert comparison.objects == tuple(f"shop/t{k}" for k in range(5))
    assert comparison.methods == ("good", "bad", REPEATED, MEAN, NEAREST)
    assert len(comparison.orbits) == 6
    assert comparison.num_training_orbits == 3
    assert comparison.left_out == {}
    good, bad, repeated = ([s.psnr for s in comparison.scores[m]] for m in ("good", "bad", REPEATED))
    assert min(good) > 45 > max(bad)
    assert repeated[0] == MAX_PSNR_DB  # all views of t0 are the same
    assert np.diff(repeated).max() < 0
    assert comparison.varied == (2, 3, 4)
    assert comparison.spreads[0] == pytest.approx(0, abs=1e-12)


def test_an_orbit_that_one_method_lacks_or_gets_wrong_counts_for_none(collection, make_orbit, tmp_path):
    (tmp_path / "bad/shop/t1/0/transforms.json").unlink()
    save_orbit(make_orbit(0, num_views=2), tmp_path / "bad/shop/t2/0", overwrite=True, for_people=False)
    comparison = score_contest(
        gather_contest(collection, collection, {"good": tmp_path / "good", "bad": tmp_path / "bad"})
    )
    assert comparison.objects == ("shop/t0", "shop/t3", "shop/t4")
    assert comparison.left_out["shop/t1/0"] == "no prediction by bad"
    assert "2 predicted views" in comparison.left_out["shop/t2/0"]


def test_report_and_sheets(collection, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MV3D_CACHE", str(tmp_path / "no weights"))
    command = [
        "compare",
        "--truth",
        str(collection),
        "--train",
        str(collection),
        "--method",
        f"good={tmp_path / 'good'}",
    ]
    assert main([*command, "--method", f"bad={tmp_path / 'bad'}", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "report.md").read_text() == printed
    for stated in (
        "All 5 objects",
        "The 3 objects whose true views differ most",
        "left out",
        "mean of the object's true views",
        "bootstrap over objects",
        "absent: LPIPS alex",
        "training orbits for the baselines: 3",
    ):
        assert stated in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    everything = report["groups"]["All 5 objects"]
    psnrs = {method: [o["scores"][method]["psnr"] for o in report["objects"].values()] for method in ("good", "bad")}
    assert everything["good"]["psnr"]["mean"]["mean"] == pytest.approx(np.mean(psnrs["good"]))
    difference = everything["bad"]["psnr"]["good minus this"]
    assert difference["mean"] == pytest.approx(np.subtract(psnrs["good"], psnrs["bad"]).mean())
    assert difference["low"] > 0
    assert everything["good"]["lpips_alex"]["mean"] is None
    sheets = sorted(path.name for path in (tmp_path / "out" / "sheets").iterdir())
    assert len(sheets) == 5
    assert {name.split("-")[0] for name in sheets} <= {"best", "median", "worst"}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--method", "good"], "not of the form NAME=DIR"),
        (["--method", "good=nowhere"], "nowhere is no folder"),
        (["--out", "."], "exists"),
    ],
)
def test_bad_input_is_one_line_and_code_2(collection, capsys, extra, message):
    assert main(["compare", "--truth", str(collection), "--train", str(collection), *extra]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_truth_among_the_training_orbits_is_refused(collection):
    (collection / "manifest.jsonl").unlink()
    with pytest.raises(Mv3dError, match="both truth and training"):
        gather_contest(collection, collection, {})


def test_a_manifest_without_the_split_is_refused(collection):
    (collection / "manifest.jsonl").write_text('{"object_id": "shop/r0", "split": "train"}\n')
    with pytest.raises(Mv3dError, match="no rendered object of the test split"):
        gather_contest(collection, collection, {})

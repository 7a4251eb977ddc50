"""python -m eval score and table, as their users run them."""

import csv
import io
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.__main__ import main
from eval.benchmark.run import training_orbits
from eval.metrics.images import MAX_PSNR_DB, psnr
from eval.metrics.names import BY_KEY
from eval.metrics.statistics import bootstrap_mean
from eval.metrics.weights import FETCH_COMMAND
from eval.scoring.baselines import MEAN, NEAREST, REPEATED, WHITE
from eval.scoring.results import Method, compare_means, load_result, save_result
from mv3d.errors import Mv3dError
from mv3d.orbit import save_orbit
from mv3d.pixels import to_uint8


@pytest.fixture(autouse=True)
def _no_weights(tmp_path, monkeypatch):
    """So that the tests are fast and the same everywhere."""
    monkeypatch.setenv("MV3D_CACHE", str(tmp_path / "no weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))


@pytest.fixture
def folders(make_orbit, tmp_path):
    """Truths a, b, c/0, c/1 and predictions of a (noisy), c (noisy), b (too few views) and d."""
    for seed, name in enumerate(("a", "b", "c/0", "c/1")):
        save_orbit(make_orbit(seed), tmp_path / "truth" / name, for_people=False)
    for seed, name in ((0, "a"), (2, "c/0"), (3, "c/1")):
        orbit = make_orbit(seed)
        noise = 0.1 * np.random.default_rng(9).standard_normal(orbit.frames.shape) * [1, 1, 1, 0]
        frames = np.clip(orbit.frames + noise, 0, 1).astype(np.float32)
        save_orbit(replace(orbit, frames=frames), tmp_path / "pred" / name, for_people=False)
    save_orbit(make_orbit(1, num_views=4), tmp_path / "pred" / "b", for_people=False)
    save_orbit(make_orbit(2), tmp_path / "pred" / "d", for_people=False)
    return tmp_path / "pred", tmp_path / "truth"


def test_folders_are_matched_by_relative_path_and_the_rest_is_named(folders, tmp_path, capsys):
    assert main(["score", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    result = load_result(tmp_path / "out")
    assert list(result.objects) == ["a", "c/0", "c/1"]
    assert result.left_out["b"] == "4 predicted views and 5 true ones; predict as many"
    assert "no truth" in result.left_out["d"]
    assert [method.name for method in result.methods] == ["pred", REPEATED, WHITE]
    for absent, why in (("lpips_alex", FETCH_COMMAND), (MEAN, "no training orbits"), (NEAREST, "no training orbits")):
        assert why in result.absent[absent]
    assert set((tmp_path / "out").iterdir()) == {
        tmp_path / "out" / name for name in ("report.html", "report.md", "scores.json", "scores.csv")
    }
    assert (tmp_path / "out" / "report.md").read_text() == capsys.readouterr().out


def test_means_are_over_views_then_orbits_then_objects(folders, tmp_path, make_orbit):
    assert main(["score", *map(str, folders), "--out", str(tmp_path / "out")]) == 0
    result = load_result(tmp_path / "out")
    expected = {}
    for seed, name in ((0, "a"), (2, "c/0"), (3, "c/1")):
        column = result.objects[name].views["pred"]["psnr"]
        noisy = folders[0] / name / "frames" / "001.png"
        picture = np.asarray(Image.open(noisy)).astype(np.float64) / 255
        on_white = picture[..., :3] * picture[..., 3:] + 1 - picture[..., 3:]
        assert column[1] == pytest.approx(float(psnr(on_white, make_orbit(seed).on()[1])), abs=1e-4)
        expected[name] = np.mean(column[1:])
    means = result.means("pred", BY_KEY["psnr"], with_input=False)
    assert means == {"a": pytest.approx(expected["a"]), "c": pytest.approx((expected["c/0"] + expected["c/1"]) / 2)}
    with_input = result.means(REPEATED, BY_KEY["psnr"], with_input=True)
    without = result.means(REPEATED, BY_KEY["psnr"], with_input=False)
    assert with_input is not None
    assert without is not None
    assert all(with_input[name] > without[name] for name in without)


def test_two_single_objects_need_no_common_name_and_views_no_cameras(folders, make_orbit, tmp_path, capsys):
    plain = tmp_path / "sv3d"
    plain.mkdir()
    for k, frame in enumerate(make_orbit(0).on()[[1, 2, 3, 4, 0]]):
        Image.fromarray(to_uint8(frame)).save(plain / f"{k:03d}.png")
    truth = str(folders[1] / "a")
    assert main(["score", str(plain), truth, "--order", "input-last", "--out", str(tmp_path / "out")]) == 0
    result = load_result(tmp_path / "out")
    assert result.objects["."].views["sv3d"]["psnr"] == [MAX_PSNR_DB] * 5
    assert result.warnings == []
    assert main(["score", str(plain), truth, "--out", str(tmp_path / "wrong")]) == 0
    (warning,) = load_result(tmp_path / "wrong").warnings
    assert "sv3d: its views fit the truth better shifted by +1 view" in warning
    assert warning in capsys.readouterr().out


def test_training_orbits_give_the_other_baselines(folders, make_orbit, tmp_path):
    for seed in (0, 20, 21):
        save_orbit(make_orbit(seed), tmp_path / "train" / str(seed), for_people=False)
    command = ["score", *map(str, folders), "--train", str(tmp_path / "train"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    result = load_result(tmp_path / "out")
    assert [method.name for method in result.methods] == ["pred", REPEATED, WHITE, MEAN, NEAREST]
    assert result.objects["a"].views[NEAREST]["psnr"] == [MAX_PSNR_DB] * 5  # it is among the training orbits
    assert result.methods[-1].about["training_orbits"] == 3


def test_no_test_orbit_is_among_the_training_orbits_of_a_job_array(make_orbit, tmp_path):
    for name in ("a", "b", "c", "d"):
        save_orbit(make_orbit(0), tmp_path / "sets/games" / name / "0", for_people=False)
    save_orbit(make_orbit(0), tmp_path / "sets/loose/0", for_people=False)
    for k, sides in enumerate([[("a", "train"), ("b", "test")], [("c", "val"), ("d", "train")]]):
        lines = (json.dumps({"object_id": name, "orbits": 1, "split": side}) + "\n" for name, side in sides)
        (tmp_path / f"sets/games/manifest-{k}-of-2.jsonl").write_text("".join(lines))

    def found(root: str) -> set[str]:
        return {path.relative_to(tmp_path / "sets").as_posix() for path in training_orbits(tmp_path / root)}

    assert found("sets/games") == {"games/a/0", "games/d/0"}
    assert found("sets") == {"games/a/0", "games/d/0", "loose/0"}  # a folder of collections
    assert found("sets/games/a") == {"games/a/0"}  # a part of one
    with pytest.raises(Mv3dError, match="holds no training orbits"):
        training_orbits(tmp_path / "sets/games/b")


def test_the_page_and_the_csv_hold_the_same_numbers_as_the_json(folders, tmp_path):
    out = tmp_path / "out"
    assert main(["score", *map(str, folders), "--out", str(out), "--name", "me & <you>"]) == 0
    result = load_result(out)
    page = (out / "report.html").read_text()
    assert "me &amp; &lt;you&gt;" in page
    assert "<you>" not in page
    assert page.count("data:image/webp;base64,") == 3
    assert page.count("data:video/mp4;base64,") == 3
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    means = result.means("me & <you>", BY_KEY["psnr"], with_input=False)
    assert means is not None
    estimate = bootstrap_mean(list(means.values()))
    assert f"{estimate.mean:.2f}" in page
    rows = list(csv.DictReader(io.StringIO((out / "scores.csv").read_text())))
    assert len(rows) == 3 * 3
    row = next(r for r in rows if r["object"] == "a" and r["method"] == REPEATED)
    expected = result.objects["a"].mean(REPEATED, BY_KEY["ssim"], with_input=True)
    assert float(row["ssim_with_input"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("pred", "truth", "extra", "message"),
    [
        ("nowhere", "truth", [], "nowhere does not exist"),
        ("pred/b", "truth/b", [], "4 predicted views and 5 true ones"),
        ("pred", "truth/c", [], "no object is in both"),
        ("empty", "truth", [], "holds no views"),
        ("broken", "truth/a", [], "cannot be read"),
        ("pred", "truth", ["--protocol", "svd5"], "did you mean svd50"),
        ("pred", "truth", ["--protocol", "svd50"], "5 true views; svd50 has 21"),
        ("pred", "truth", ["--order", "backwards"], "invalid choice"),
        ("pred", "truth", ["--train", "empty"], "holds no"),
        ("pred", "truth", ["--lpips", "resnet"], "no LPIPS on resnet; networks are alex, vgg, squeeze"),
    ],
)
def test_bad_input_is_one_line_code_2_and_nothing_written(folders, tmp_path, capsys, pred, truth, extra, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "transforms.json").write_text("{")
    extra = [str(tmp_path / "empty") if word == "empty" else word for word in extra]
    command = ["score", str(tmp_path / pred), str(tmp_path / truth), *extra, "--out", str(tmp_path / "out")]
    assert main(command) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("eval: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_report_is_not_replaced_by_accident(folders, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert main(["score", *map(str, folders), "--out", str(tmp_path / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------
# Runs side by side.


@pytest.fixture
def runs(folders, tmp_path, capsys):
    """Two runs of one protocol that differ by one decibel on every view of the method under test."""
    assert main(["score", *map(str, folders), "--out", str(tmp_path / "first")]) == 0
    first = load_result(tmp_path / "first")
    objects = json.loads(json.dumps({name: o.views for name, o in first.objects.items()}))
    for views in objects.values():
        views["pred"]["psnr"] = [value - 1 for value in views["pred"]["psnr"]]
    second = replace(first, objects={name: replace(o, views=objects[name]) for name, o in first.objects.items()})
    save_result(second, tmp_path / "second" / "scores.json")
    capsys.readouterr()
    return tmp_path / "first", tmp_path / "second"


def test_runs_stand_side_by_side_with_paired_differences(runs, tmp_path, capsys):
    assert main(["table", *map(str, runs), "--out", str(tmp_path / "table.md")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == printed
    assert "pred (first)" in printed
    assert "pred (second)" in printed
    assert printed.count(REPEATED) == 1
    line = next(line for line in printed.splitlines() if "first minus second" in line)
    assert "+1.00" in line
    # The interval of the difference is narrow though both means are wide: it is paired.
    means = [load_result(run).means("pred", BY_KEY["psnr"], with_input=False) for run in runs]
    difference = compare_means(*means)
    assert difference is not None
    assert difference.high - difference.low < 1e-6


def test_published_rows_are_shown_beside_runs_of_their_protocol_only(runs, capsys):
    from eval.protocol import load_protocol
    from eval.scoring.comparison import describe_protocol

    for run, name in zip(runs, ("svd50", "eschernet30"), strict=True):
        save_result(replace(load_result(run), protocol=describe_protocol(load_protocol(name))), run / "scores.json")
    assert main(["table", str(runs[0])]) == 0
    printed = capsys.readouterr().out
    assert "SVD-MV (video prior)" in printed
    assert "16.83" in printed
    assert "RealFusion" not in printed
    assert main(["table", *map(str, runs)]) == 2
    assert "different protocols do not stand in one table" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", '{"mv3d_eval": 9}', None])
def test_what_is_no_run_is_said(tmp_path, capsys, content):
    (tmp_path / "run").mkdir()
    if content is not None:
        (tmp_path / "run" / "scores.json").write_text(content)
    assert main(["table", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "scores.json" in line


def test_results_survive_the_file(runs, tmp_path):
    result = load_result(runs[0])
    save_result(result, tmp_path / "copy.json")
    assert load_result(tmp_path / "copy.json") == result
    assert isinstance(result.methods[0], Method)


def test_means_and_page_go_to_wandb(runs, monkeypatch):
    """Only the service is stood in for: what is sent, and under which names, is ours."""
    from eval.report.upload import upload_report

    sent = types.SimpleNamespace(summary={}, logged={}, finished=False)
    sent.log = sent.logged.update
    sent.finish = lambda: setattr(sent, "finished", True)
    service = types.ModuleType("wandb")
    service.init = lambda **started: sent.__dict__.update(started) or sent  # pyright: ignore[reportAttributeAccessIssue]
    service.Html = lambda path, inject: Path(path).read_text()  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "wandb", service)
    result = load_result(runs[0])
    upload_report(result, runs[0], "views")
    estimate = result.estimate("pred", BY_KEY["psnr"], with_input=False)
    assert estimate is not None
    assert sent.summary["pred/psnr"] == estimate.mean
    assert sent.summary[f"{WHITE}/ssim"] < sent.summary["pred/ssim"]
    assert sent.project == "views"
    assert sent.logged["report"] == (runs[0] / "report.html").read_text()
    assert sent.finished

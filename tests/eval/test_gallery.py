"""python -m eval gallery, as its users run it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.__main__ import main
from eval.benchmark.given import score_given
from eval.scoring.results import Method, save_result
from mv3d.orbit import load_orbit, save_orbit
from mv3d.pixels import composite, resize

# Seven objects; the first is predicted best. Their names' order is another one.
NAMES = ("g", "c", "e", "a", "f", "b", "d")


@pytest.fixture
def run(make_orbit, tmp_path) -> tuple[Path, Path]:
    """A report and its work folder, as python -m eval run leaves them."""
    truth, predicted = tmp_path / "work/none-none/truth", tmp_path / "work/none-none/small-12ab34cd"
    for k, name in enumerate(NAMES):
        orbit = make_orbit(k, num_views=7)
        facts = replace(orbit.facts, source=f"shop/{name}", licence="CC0 | so to say", extra={"name": f"Thing {name}"})
        save_orbit(replace(orbit, facts=facts), truth / name / "0", for_people=False)
        noise = 0.05 * (k + 1) * np.random.default_rng(k).standard_normal(orbit.frames.shape) * [1, 1, 1, 0]
        frames = np.clip(orbit.frames + noise, 0, 1).astype(np.float32)
        save_orbit(replace(orbit, frames=frames), predicted / name / "0", for_people=False)
    result = score_given(predicted, truth, None, "input-first", "small", None, [], dists=False).result
    save_result(result, tmp_path / "given/scores.json")
    methods = [Method("small", "model", {"fingerprint": "12ab34cd"}), *result.methods[1:]]
    save_result(replace(result, methods=methods), tmp_path / "report/scores.json")
    return tmp_path / "report", tmp_path / "work"


def test_best_median_and_worst_are_shown_and_told(run, tmp_path):
    report, work = run
    words = ["gallery", str(report), "--work", str(work), "--by", "psnr", "--count", "2"]
    assert main([*words, "--out", str(tmp_path / "gallery")]) == 0
    out = tmp_path / "gallery"
    assert {path.name for path in out.iterdir()} == {"best.webp", "median.webp", "worst.webp", "README.md"}
    text = (out / "README.md").read_text()
    # Best first throughout; of seven, the third and fourth are the middle two.
    assert re.findall(r"Thing (\w)", text) == ["g", "c", "e", "a", "b", "d"]
    assert "shop/g, CC0 / so to say" in text
    for name in ("best", "median", "worst"):
        assert f"![{name}]({name}.webp)" in text
        with Image.open(out / f"{name}.webp") as sheet:
            assert sheet.height == 2 * (22 + 2 * 96)


def test_sheets_hold_input_truth_and_prediction_where_they_say(run, tmp_path):
    report, work = run
    words = ["gallery", str(report), "--work", str(work), "--by", "psnr", "--count", "1"]
    assert main([*words, "--out", str(tmp_path / "gallery")]) == 0
    with Image.open(tmp_path / "gallery/worst.webp") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(np.float64) / 255
    truth, predicted = (load_orbit(work / f"none-none/{side}/d/0") for side in ("truth", "small-12ab34cd"))
    places = {(22 + 48, 0): truth.frames[0]}
    for k in range(6):
        places |= {(22, 102 + 96 * k): truth.frames[k + 1], (118, 102 + 96 * k): predicted.frames[k + 1]}
    for (top, left), frame in places.items():
        on_white = np.concatenate([composite(frame), np.ones_like(frame[..., :1])], axis=-1)
        difference = np.abs(pixels[top : top + 96, left : left + 96] - resize(on_white, 96, 96)[..., :3])
        assert difference.mean() < 0.06  # compression's; another view of these is 0.2 off


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: [*w, "--by", "lpips_alex"], "this run has no lpips_alex to rank by; it has psnr, ssim"),
        (lambda w: [*w, "--count", "0"], "7 objects on sheets of 0"),
        (lambda w: [*w[:3], w[3] + "s", *w[4:]], "works/none-none/truth; name the folder it kept them in (--work)"),
        (lambda w: [w[0], w[1] + "/none", *w[2:]], "is no result of python -m eval"),
        (lambda w: [w[0], w[1] + "/../given", *w[2:]], "was given as views"),
    ],
    ids=["metric", "count", "work", "report", "given"],
)
def test_bad_input_is_one_line_code_2_and_nothing_written(run, tmp_path, capsys, change, message):
    capsys.readouterr()
    words = change(["gallery", str(run[0]), "--work", str(run[1]), "--by", "psnr"])
    assert main([*words, "--out", str(tmp_path / "gallery")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("eval: ")
    assert message in line
    assert not (tmp_path / "gallery").exists()


def test_a_view_that_is_gone_leaves_nothing_half_written(run, tmp_path, capsys):
    report, work = run
    (work / "none-none/small-12ab34cd/d/0/frames/003.png").unlink()
    words = ["gallery", str(report), "--work", str(work), "--by", "psnr"]
    assert main([*words, "--out", str(tmp_path / "gallery")]) == 2
    assert "003.png" in capsys.readouterr().err
    assert not any("gallery" in path.name for path in tmp_path.iterdir())

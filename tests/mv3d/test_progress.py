"""Progress: the stage by its name, moving by itself, and the time left; nothing where nobody watches."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from mv3d.cli import main
from mv3d.progress import Pace, StageBar

SHOWN = re.compile(r"(\S+): (\w+) +(\d+)%\|.*?\| (\d+):(\d\d) left")
USUAL = {"loading": 10.0, "first": 10.0, "second": 20.0}


def shown(text: str) -> list[tuple[str, str, int]]:
    return [(name, stage, int(percent)) for name, stage, percent, _, _ in SHOWN.findall(text)]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MV3D_PROGRESS", "1")


def test_the_time_left_follows_the_clock_then_this_machine_s_speed_then_the_steps():
    pace = Pace(USUAL, now=100)
    assert (pace.stage, pace.seconds_left(100), pace.share(100)) == ("loading", 40, 0)
    assert (pace.seconds_left(105), pace.share(105)) == (35, 5 / 40)
    pace.update("first", 0, now=102)  # loaded already: that tells nothing of the rest
    assert pace.seconds_left(102) == 30
    pace.update("second", 0, now=122)  # twice as slow as usual
    assert pace.seconds_left(122) == 40
    pace.update("second", 0.25, now=127)
    assert pace.seconds_left(127) == pytest.approx(15)
    assert pace.seconds_left(137) == pytest.approx(5)


def test_the_share_never_falls_and_never_ends_early():
    pace = Pace(USUAL, now=0)
    pace.update("first", 0, now=5)
    shares = [pace.share(now) for now in (5, 10, 14)]
    pace.update("first", 0.1, now=15)  # slower than it seemed
    shares += [pace.share(now) for now in (15, 100, 1000)]
    assert shares == sorted(shares)
    assert shares[-1] < 1
    pace.update("second", 1.0, now=1001)  # its steps are done, and it is not: there is decoding
    assert 0 < pace.seconds_left(1010) < 5


def test_a_stage_that_is_left_out_takes_no_time():
    pace = Pace(USUAL, now=0)
    pace.update("second", 0, now=1)
    assert pace.seconds_left(1) == 20


@pytest.mark.usefixtures("watched")
def test_the_bar_moves_without_a_step(capsys):
    with StageBar({"loading": 10.0, "views": 10.0}) as bar:
        bar.update("mug.png", "loading")
        seen, ends = shown(capsys.readouterr().err), time.monotonic() + 60
        assert seen[0][:2] == ("mug.png", "loading")
        while seen[-1][2] <= seen[0][2] and time.monotonic() < ends:
            time.sleep(0.05)
            seen += shown(capsys.readouterr().err)
        assert seen[-1][2] > seen[0][2]
        bar.say("a line")
        bar.update("mug.png", "views")
        text = capsys.readouterr().err
        assert "\ra line\n" in text or "\na line\n" in text
        assert shown(text)[-1][1] == "views"
    assert capsys.readouterr().err.endswith("\r")  # nothing stays


def test_nothing_is_shown_where_nobody_watches_or_json_is_asked_for(capsys, monkeypatch):
    for environment, quiet in (("", False), ("1", True)):
        monkeypatch.setenv("MV3D_PROGRESS", environment)
        with StageBar(USUAL, quiet=quiet) as bar:
            bar.update("mug.png", "loading")
            bar.say("a line")
        assert capsys.readouterr().err == "a line\n"


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("verb", ["orbit", "lift"])
def test_a_bar_is_there_before_anything_is_imported(verb: str, capsys, monkeypatch):
    for module in ("mv3d.jobs", "mv3d.export"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it raises
    with pytest.raises(ImportError):
        main([verb, "mug", *(["-o", "mug.glb"] if verb == "lift" else [])])
    assert shown(capsys.readouterr().err)[0][:2] == ("mug", "loading")


@pytest.mark.slow
@pytest.mark.usefixtures("watched")
def test_orbit_and_lift_name_their_stages(tmp_path: Path, capsys, tiny_model: Path):
    picture = Image.new("RGBA", (32, 32))
    picture.paste((0, 90, 0, 255), (8, 6, 24, 28))
    picture.save(tmp_path / "mug.png")
    out = str(tmp_path / "out")
    given = ["orbit", str(tmp_path / "mug.png"), "-o", out, "--mesh", "--num-views", "3", "--model", str(tiny_model)]
    assert main(given) == 0
    steps = shown(capsys.readouterr().err)
    assert list(dict.fromkeys(stage for _, stage, _ in steps)) == ["loading", "coarse", "views", "surface", "texture"]
    assert {name for name, _, _ in steps} == {"mug.png"}
    percents = [percent for _, _, percent in steps]
    assert percents == sorted(percents)
    assert main(["lift", out, "-o", str(tmp_path / "mug.glb"), "--preview"]) == 0
    steps = shown(capsys.readouterr().err)
    assert list(dict.fromkeys(stage for _, stage, _ in steps)) == ["loading", "surface", "texture"]
    assert main([*given, "--overwrite", "--json"]) == 0
    assert shown(capsys.readouterr().err) == []

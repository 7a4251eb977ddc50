from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from mv3d.cameras import static_orbit
from mv3d.dataset import Entry
from mv3d.errors import Mv3dError
from mv3d.orbit import Facts, Orbit, save_orbit
from render.__main__ import main
from render.curation.curation import load_rules
from render.curation.scores import score_orbit
from render.curation.text import TextReader

RULES = Path(__file__).parents[2] / "configs" / "curation.yaml"
VIEWS, SIZE = 6, 64
Paint = Callable[[np.ndarray, int], None]


def make_orbit(paint: Paint, triangles: int = 500, lacking_files: int = 0) -> Orbit:
    """An orbit whose views are painted one by one."""
    frames = np.zeros((VIEWS, SIZE, SIZE, 4), np.float32)
    for k, frame in enumerate(frames):
        paint(frame, k)
    numbers = {"triangles": triangles, "lacking_files": lacking_files}
    facts = Facts(extra={"split": "train", "geometry_hash": "0", **numbers}, seconds={"render": 1.0})
    return Orbit(frames, static_orbit(VIEWS, 10, size_px=SIZE), facts)


def stripes(colour: tuple[float, float, float], width: int = 30, height: int = 40) -> Paint:
    def paint(frame: np.ndarray, k: int) -> None:
        top, left = (SIZE - height) // 2, (SIZE - width) // 2
        frame[top : top + height, left : left + width] = (*colour, 1)
        frame[top : top + height // 2, left : left + width, :3] = (0.1, 0.1, 0.1)

    return paint


def labelled(frame: np.ndarray, k: int) -> None:
    """A carton that says what is in it, on its front."""
    frame[6:58, 4:60] = (0.8, 0.85, 0.5, 1)
    frame[44:58, 4:60, :3] = (0.2, 0.4, 0.3)
    if k in (0, 1):
        picture = Image.fromarray((frame[..., :3] * 255).astype(np.uint8))
        ImageDraw.Draw(picture).text((14, 18), "MILK", fill=(0, 0, 0), font=ImageFont.load_default(15))
        frame[..., :3] = np.asarray(picture) / 255


def rail(frame: np.ndarray, k: int) -> None:
    """Bars whose outline looks like letters, on nothing."""
    mask = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(mask).text((3, 20), "HUNT", fill=255, font=ImageFont.load_default(22))
    frame[..., 3] = np.asarray(mask) > 100
    frame[:32, :, :3] = (0.1, 0.2, 0.6)


def plain(frame: np.ndarray, k: int) -> None:
    frame[10:50, 20:45] = (0.5, 0.5, 0.5, 1)


def card(frame: np.ndarray, k: int) -> None:
    stripes((0.9, 0.2, 0.1), width=(40, 20, 2, 40, 20, 2)[k])(frame, k)


def rug(frame: np.ndarray, k: int) -> None:
    frame[31:33, 2:62] = (0.9, 0.1, 0.1, 1)
    frame[32, 2:62, :3] = (0.1, 0.1, 0.9)


def crumbs(frame: np.ndarray, k: int) -> None:
    frame[8:60:8, 8:60:8] = (0.9, 0.1, 0.1, 1)
    frame[12:60:8, 12:60:8] = (0.1, 0.1, 0.9, 1)


def speck(frame: np.ndarray, k: int) -> None:
    frame[30:33, 30:33] = (0.9, 0.1, 0.1, 1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """One object for every rule, and two good ones."""
    good, twin = stripes((0.9, 0.2, 0.1)), stripes((0.9, 0.21, 0.1))
    objects = {
        "good": (good, "Good chair", "CC0", 500),
        "other": (stripes((0.1, 0.8, 0.2), 44, 30), "Other", "Creative Commons Attribution 3.0 license © Ann", 500),
        "twin": (twin, "Twin", "CC-BY-4.0", 500),
        "plain": (plain, "Plain", "CC0", 500),
        "card": (card, "Card", "CC0", 500),
        "rug": (rug, "Rug", "CC0", 500),
        "crumbs": (crumbs, "Crumbs", "CC0", 500),
        "speck": (speck, "Speck", "CC0", 500),
        "heavy": (stripes((0.2, 0.2, 0.9), 50, 50), "Heavy", "CC0", 2_000_000),
        "named": (stripes((0.9, 0.9, 0.2), 20, 50), "Street sign", "CC0", 500),
        "selfish": (stripes((0.5, 0.9, 0.9), 36, 20), "Selfish", "CC-BY-NC-4.0", 500),
        "alike": (stripes((0.9, 0.5, 0.9), 36, 26), "Alike", "CC BY-SA 4.0", 500),
        "mine": (stripes((0.2, 0.6, 0.4), 14, 50), "Mine", None, 500),
        "labelled": (labelled, "Carton", "CC0", 500),
        "lacking": (stripes((0.3, 0.9, 0.7), 24, 44), "Lacking", "CC0", 500),
        "empty": (lambda frame, k: None, "Empty", "CC0", 500),
    }
    with (tmp_path / "manifest.jsonl").open("w") as manifest:
        for name, (paint, title, licence, triangles) in objects.items():
            save_orbit(
                make_orbit(paint, triangles, 2 if name == "lacking" else 0), tmp_path / name / "0", for_people=False
            )
            line = {"object_id": name, "name": title, "source": "x", "licence": licence, "split": "train", "orbits": 1}
            manifest.write(json.dumps(line) + "\n")
    return tmp_path


@pytest.mark.slow
def test_every_rule_drops_what_it_is_for_and_says_so(place: Path, capsys) -> None:
    assert main(["curate", str(place), "--rules", str(RULES)]) == 0
    printed = capsys.readouterr().out
    lines = {line["object_id"]: line for line in map(json.loads, (place / "curation.jsonl").read_text().splitlines())}
    dropped = {name: (line["broad"] or "kept").split()[0] for name, line in lines.items()}
    assert dropped == {
        "good": "kept",
        "other": "kept",
        "mine": "kept",
        "twin": "copy",
        "plain": "single",
        "card": "card",
        "rug": "rug",
        "crumbs": "scattered",
        "speck": "silhouette",
        "heavy": "triangles",
        "named": "word",
        "selfish": "licence",
        "alike": "licence",
        "labelled": "text",
        "lacking": "lacking",
        "empty": "silhouette",
    }
    assert lines["twin"]["broad"] == "copy of good"
    assert lines["lacking"]["broad"] == "lacking 2 files"
    share, word = lines["labelled"]["broad"].removeprefix("text ").split(maxsplit=1)
    assert 0.1 < float(share) < 0.5
    assert "MILK" in word.upper()
    assert {word["view"] for word in lines["labelled"]["words"]} <= {0, 1}
    assert "broad: 3 of 16 objects" in printed
    assert "2 dropped: licence" in printed
    assert (place / "broad.txt").read_text().split() == ["good", "other", "mine"]
    assert set((place / "fine.txt").read_text().split()) <= {"good", "other", "mine"}
    assert (place / "broad-kept.png").is_file()
    assert (place / "broad-dropped.png").is_file()


def test_own_meshes_are_dropped_where_the_rules_do_not_name_them(tmp_path: Path) -> None:
    mine, scores = Entry("mine", "Mine"), score_orbit(make_orbit(stripes((0.2, 0.6, 0.4))))
    assert load_rules(RULES)["broad"].fault(mine, scores) is None
    (tmp_path / "rules.yaml").write_text(RULES.read_text().replace("[own, ", "["))
    assert load_rules(tmp_path / "rules.yaml")["broad"].fault(mine, scores) == "licence None"


def test_an_outline_that_looks_like_letters_is_no_text(monkeypatch) -> None:
    reader = TextReader()
    assert reader.words(make_orbit(rail)) == ()
    monkeypatch.setattr("render.curation.text._LEAST_ON_OBJECT", 0.0)
    assert any("HUNT" in word.text for word in reader.words(make_orbit(rail)))


@pytest.mark.slow
def test_other_thresholds_measure_and_read_nothing_again(place: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    assert main(["curate", str(place), "--rules", str(RULES)]) == 0
    first = (place / "curation.jsonl").read_text()
    with (place / "scores.jsonl").open("a") as file:
        file.write('{"orbit": "good/0", "rendered_at"')  # as a killed run leaves it

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("render.curation.score_cache.score_orbit", refuse)
    monkeypatch.setattr("render.curation.score_cache.TextReader", refuse)
    assert main(["curate", str(place), "--rules", str(RULES)]) == 0
    assert (place / "curation.jsonl").read_text() == first
    lenient = tmp_path / "lenient.yaml"
    lenient.write_text(RULES.read_text().replace("most_text: 0.01", "most_text: 1"))
    capsys.readouterr()
    assert main(["curate", str(place), "--rules", str(lenient)]) == 0
    assert "broad: 4 of 16 objects" in capsys.readouterr().out
    assert "labelled" in (place / "broad.txt").read_text()


@pytest.mark.slow
def test_an_object_that_was_rendered_again_is_measured_again(place: Path, capsys) -> None:
    assert main(["curate", str(place), "--rules", str(RULES)]) == 0
    shutil.rmtree(place / "good" / "0")
    save_orbit(make_orbit(speck), place / "good" / "0", for_people=False)
    assert main(["curate", str(place), "--rules", str(RULES)]) == 0
    assert (place / "broad.txt").read_text().split() == ["other", "twin", "mine"]


def test_without_the_reader_of_text_a_line_says_what_to_install(place: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    assert main(["curate", str(place), "--rules", str(RULES)]) == 2
    assert 'pip install -c constraints.txt -e ".[curate]"' in capsys.readouterr().err.splitlines()[-1]
    assert not (place / "curation.jsonl").exists()


def test_looks_do_not_change_with_the_first_views_azimuth() -> None:
    def lopsided(frame: np.ndarray, k: int) -> None:
        frame[10 + 3 * k : 50, 20:45] = (0.9, 0.1 * k, 0.1, 1)

    orbit = make_orbit(lopsided)
    turned = Orbit(np.roll(orbit.frames, 2, axis=0), orbit.cameras, orbit.facts)
    np.testing.assert_allclose(score_orbit(turned).look, score_orbit(orbit).look, atol=1e-6)
    assert score_orbit(orbit).look.sum() == pytest.approx(2, abs=1e-5)


def test_rules_that_are_not_as_they_should_be_are_refused(tmp_path: Path) -> None:
    text = RULES.read_text()
    for wrong, reason in (
        (text.replace("thinnest", "thinest", 1), "broad.thinest is no threshold; thinnest?"),
        (text.replace("fine:", "best:"), "must have the sets broad and fine"),
        ("a: [", "cannot be read"),
        ("\n".join(line for line in text.splitlines() if "least_colour: 0.02" not in line), "fine has no least_colour"),
    ):
        (tmp_path / "rules.yaml").write_text(wrong)
        with pytest.raises(Mv3dError, match=reason):
            load_rules(tmp_path / "rules.yaml")


def test_a_place_without_objects_is_refused(tmp_path: Path, capsys) -> None:
    assert main(["curate", str(tmp_path), "--rules", str(RULES)]) == 2
    assert "has no manifest.jsonl" in capsys.readouterr().err

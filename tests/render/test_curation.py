from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mv3d.cameras import static_orbit
from mv3d.errors import Mv3dError
from mv3d.orbit import Facts, Orbit, save_orbit
from render.__main__ import main
from render.curation import load_rules
from render.scores import score_orbit

RULES = Path(__file__).parents[2] / "configs" / "curation.yaml"
VIEWS, SIZE = 6, 64
Paint = Callable[[np.ndarray, int], None]


def make_orbit(paint: Paint, triangles: int = 500) -> Orbit:
    """An orbit whose views are painted one by one."""
    frames = np.zeros((VIEWS, SIZE, SIZE, 4), np.float32)
    for k, frame in enumerate(frames):
        paint(frame, k)
    facts = Facts(extra={"split": "train", "geometry_hash": "0", "triangles": triangles}, seconds={"render": 1.0})
    return Orbit(frames, static_orbit(VIEWS, 10, size_px=SIZE), facts)


def stripes(colour: tuple[float, float, float], width: int = 30, height: int = 40) -> Paint:
    def paint(frame: np.ndarray, k: int) -> None:
        top, left = (SIZE - height) // 2, (SIZE - width) // 2
        frame[top : top + height, left : left + width] = (*colour, 1)
        frame[top : top + height // 2, left : left + width, :3] = (0.1, 0.1, 0.1)

    return paint


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
        "empty": (lambda frame, k: None, "Empty", "CC0", 500),
    }
    with (tmp_path / "manifest.jsonl").open("w") as manifest:
        for name, (paint, title, licence, triangles) in objects.items():
            save_orbit(make_orbit(paint, triangles), tmp_path / name / "0", for_people=False)
            line = {"object_id": name, "name": title, "source": "x", "licence": licence, "split": "train", "orbits": 1}
            manifest.write(json.dumps(line) + "\n")
    return tmp_path


def test_every_rule_drops_what_it_is_for_and_says_so(place: Path, capsys) -> None:
    assert main(["curate", str(place), "--rules", str(RULES)]) == 0
    printed = capsys.readouterr().out
    lines = {line["object_id"]: line for line in map(json.loads, (place / "curation.jsonl").read_text().splitlines())}
    dropped = {name: (line["broad"] or "kept").split()[0] for name, line in lines.items()}
    assert dropped == {
        "good": "kept",
        "other": "kept",
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
        "empty": "silhouette",
    }
    assert lines["twin"]["broad"] == "copy of good"
    assert "broad: 2 of 13 objects" in printed
    assert "2 dropped: licence" in printed
    assert (place / "broad.txt").read_text().split() == ["good", "other"]
    assert set((place / "fine.txt").read_text().split()) <= {"good", "other"}
    assert (place / "broad-kept.png").is_file()
    assert (place / "broad-dropped.png").is_file()


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

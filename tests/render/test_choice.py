"""What the user says of objects: which, on which side, under which licence, and in grey."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mv3d.dataset import list_orbits, read_manifest
from mv3d.depth import load_depth
from mv3d.orbit import load_orbit
from render.__main__ import main

SMALL = ("--num-views", "3", "--size", "16", "--workers", "1")


@pytest.fixture
def many(meshes: Path, cube_obj) -> Path:
    """A cube, three chairs and two mugs, of different shapes."""
    for k, name in enumerate(("chairs/a", "chairs/b", "chairs/c", "mugs/a", "mugs/b")):
        path = meshes / f"{name}.obj"
        path.parent.mkdir(exist_ok=True)
        path.write_text(cube_obj((1, 1, 2 + k)))
        (path.parent / "cube.mtl").write_text((meshes / "cube.mtl").read_text())
    return meshes


def listed(capsys, *arguments: str | Path) -> list[str]:
    assert main(["list", *map(str, arguments)]) == 0
    return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]


def test_objects_are_chosen_by_id_pattern_file_and_number(many: Path, tmp_path: Path, capsys) -> None:
    everything = ["chairs/a", "chairs/b", "chairs/c", "cube", "mugs/a", "mugs/b"]
    assert listed(capsys, many) == everything
    assert listed(capsys, many, "--only", "cube", "chairs/*") == everything[:4]
    assert listed(capsys, many, "--limit", "2") == everything[:2]
    assert listed(capsys, many, "--only", "mugs/*", "--limit", "1") == ["mugs/a"]
    names = tmp_path / "broad.txt"  # as curate writes it
    names.write_text("mugs/b\nchairs/b\n")
    assert listed(capsys, many, "--only", names) == ["chairs/b", "mugs/b"]


def test_a_given_split_is_the_manifests_and_stays(many: Path, tmp_path: Path) -> None:
    sides, out = tmp_path / "sides.txt", tmp_path / "out"
    sides.write_text("# mine\nchairs/b\ttest\nchairs/* val\n\nmugs/a  train\n")
    only = ("--only", "chairs/*", "mugs/a")
    assert main(["orbits", str(many), "--out", str(out), *SMALL, *only, "--split", str(sides)]) == 0
    expected = {"chairs/a": "val", "chairs/b": "test", "chairs/c": "val", "mugs/a": "train"}
    assert {name: entry.split for name, entry in read_manifest(out).items()} == expected
    # Later runs that say nothing of sides leave them, second orbits included.
    assert main(["orbits", str(many), "--out", str(out), *SMALL, *only, "--num-orbits", "2"]) == 0
    assert {name: entry.split for name, entry in read_manifest(out).items()} == expected
    assert {e.object_id: e.split for e in list_orbits([out]).orbits} == expected
    # And other ones are taken for what is rendered already.
    sides.write_text("chairs/b train\nmugs/a test\n")
    assert main(["orbits", str(many), "--out", str(out), *SMALL, *only, "--split", str(sides)]) == 0
    changed = expected | {"chairs/b": "train", "mugs/a": "test"}
    assert {name: entry.split for name, entry in read_manifest(out).items()} == changed


def test_own_objects_are_given_a_licence_and_others_keep_theirs(many: Path, library: Path, tmp_path: Path) -> None:
    given = ("--licence", "CC-BY-4.0")
    assert main(["orbits", str(many), "--out", str(tmp_path / "own"), *SMALL, "--only", "cube", *given]) == 0
    assert read_manifest(tmp_path / "own")["cube"].licence == "CC-BY-4.0"
    assert load_orbit(tmp_path / "own/cube/0").facts.licence == "CC-BY-4.0"
    assert main(["orbits", str(library), "--out", str(tmp_path / "shop"), *SMALL, *given]) == 0
    assert {entry.licence for entry in read_manifest(tmp_path / "shop").values()} == {"CC0 © nobody"}


@pytest.mark.slow
def test_meshes_without_colour_are_grey_where_that_is_asked_for(many: Path, tmp_path: Path, capsys) -> None:
    bare = "\n".join(line for line in (many / "cube.obj").read_text().splitlines() if line[0] in "vf")
    (many / "bare.obj").write_text(bare + "\n")
    out, words = tmp_path / "out", (*SMALL, "--only", "bare", "cube")
    assert main(["orbits", str(many), "--out", str(out), *words]) == 0
    assert "ask for grey" in (read_manifest(out)["bare"].failed or "")
    coloured = load_orbit(out / "cube/0").frames
    assert main(["orbits", str(many), "--out", str(out), *words, "--grey"]) == 0
    assert read_manifest(out)["bare"].failed is None
    frames = load_orbit(out / "bare/0").frames
    assert (frames[..., 3] == 1).any()
    assert np.ptp(frames[frames[..., 3] > 0][:, :3], axis=1).max() < 0.15  # but for the lights' own tints
    np.testing.assert_array_equal(load_orbit(out / "cube/0").frames, coloured)
    assert main(["depth", str(many), "--out", str(out), "--only", "bare", "--grey", "--workers", "1"]) == 0
    depth = load_depth(out / "bare/0")
    assert depth is not None
    assert (depth > 0).any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "chair/*"], "render: chair/* is none of the 6 objects; chairs/"),
        (["--only", "xyzzy"], "xyzzy is none of the 6 objects; python -m render list SOURCE shows all (--only)"),
        (["--limit", "0"], "0 objects: give a positive number (--limit)"),
        (["--split", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--split", "cube training"], "'cube training' is no object id and one of train, val, test"),
        (["--split", "val"], "'val' is no object id and one of train, val, test"),
        (["--split", "cubes val"], "cubes is none of the 6 objects; cube?"),
        (["--split", "# nothing"], "has no line; give one for each object or pattern"),
    ],
)
def test_a_mistake_is_one_line(many: Path, tmp_path: Path, capsys, words: list[str], message: str) -> None:
    if words[0] == "--split" and not words[1].endswith(".txt"):
        (tmp_path / "sides").write_text(words[1] + "\n")
        words = ["--split", str(tmp_path / "sides")]
    assert main(["orbits", str(many), "--out", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("render: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_manifest_of_another_object_under_the_name_gives_it_no_side(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["orbits", str(many), "--out", str(out), *SMALL, "--only", "cube"]
    assert main(words) == 0
    line = json.loads((out / "manifest.jsonl").read_text())
    by_shape = line["split"]
    other = next(side for side in ("train", "val", "test") if side != by_shape)
    (out / "manifest.jsonl").write_text(json.dumps(line | {"split": other, "geometry_hash": "0" * 16}) + "\n")
    assert main(words) == 0
    assert read_manifest(out)["cube"].split == by_shape

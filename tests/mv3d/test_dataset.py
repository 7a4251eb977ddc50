"""Manifests of collections, whole, in parts of a job array, and damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mv3d.dataset import Entry, find_collections, fingerprint, has_manifest, list_orbits, orbit_folders, read_manifest
from mv3d.errors import Mv3dError


def make_orbit(collection: Path, name: str) -> Path:
    folder = collection / name
    (folder / "frames").mkdir(parents=True)
    (folder / "transforms.json").write_text("{}")
    (folder / "frames/000.png").write_bytes(b"picture")
    return folder


def write(path: Path, *entries: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_manifests_of_a_job_array_are_one_and_files_called_alike_are_none(tmp_path: Path):
    write(tmp_path / "manifest-0-of-2.jsonl", {"object_id": "a", "orbits": 1, "split": "test"})
    write(tmp_path / "manifest-1-of-2.jsonl", {"object_id": "b", "failed": "flat", "new": "of a later version"})
    (tmp_path / "manifest-old.jsonl").write_text("no JSON")
    (tmp_path / "manifest.jsonl.bak").write_text("no JSON")
    assert has_manifest(tmp_path)
    assert read_manifest(tmp_path) == {
        "a": Entry("a", orbits=1, split="test"),
        "b": Entry("b", failed="flat"),
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"object_id": "b", "orb', "Unterminated string"),
        ('"b"', "it names no object_id"),
        ('{"name": "b"}', "it names no object_id"),
        ('{"object_id": "../b", "orbits": 1}', "'../b' is no place in its folder"),
        ('{"object_id": "/b", "orbits": 1}', "'/b' is no place in its folder"),
        ('{"object_id": "b", "orbits": "many"}', "orbits is 'many'"),
        ('{"object_id": "b", "split": 3}', "split is 3"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, message: str):
    (tmp_path / "manifest.jsonl").write_text('{"object_id": "a", "orbits": 1}\n' + line)
    with pytest.raises(Mv3dError, match=r"manifest.jsonl, line 2: no line of a manifest") as caught:
        read_manifest(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_is_no_manifest(tmp_path: Path):
    os.mkfifo(tmp_path / "manifest.jsonl")
    with pytest.raises(Mv3dError, match=r"manifest.jsonl is a pipe or a device"):
        read_manifest(tmp_path)


def test_what_is_no_collection_says_how_to_make_one(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Mv3dError, match=r"has no manifest.jsonl; make orbits with: python -m render orbits SOURCE"):
            list_orbits([folder])


def test_whole_orbits_are_listed_in_order_and_missing_ones_told(tmp_path: Path):
    for name in ("a/0", "a/10", "a/2", "a/.partial-7-3", "b/0"):
        make_orbit(tmp_path, name)
    lines = [{"object_id": "a", "orbits": 3, "split": "val"}, {"object_id": "b", "orbits": 2}, {"object_id": "c"}]
    write(tmp_path / "manifest.jsonl", *lines)
    listing = list_orbits([tmp_path])
    assert [Path(entry.orbit).relative_to(tmp_path).as_posix() for entry in listing.orbits] == [
        "a/0",
        "a/2",
        "a/10",
        "b/0",
    ]
    assert [entry.split for entry in listing.orbits] == ["val", "val", "val", "train"]
    assert listing.left_out == {str(tmp_path / "b"): "the manifest lists 2 orbits, 1 are there; render the rest again"}
    assert [path.name for path in orbit_folders(tmp_path / "a")] == ["0", "2", "10"]


def test_a_list_names_some_of_a_collections_objects(tmp_path: Path):
    for name in ("a/0", "b/0", "b/1"):
        make_orbit(tmp_path, name)
    write(tmp_path / "manifest.jsonl", {"object_id": "a", "orbits": 1}, {"object_id": "b", "orbits": 2})
    names = tmp_path / "broad.txt"
    names.write_text("b\n\nc\n")
    listing = list_orbits([names])
    assert [entry.object_id for entry in listing.orbits] == ["b", "b"]
    assert listing.left_out == {str(tmp_path / "c"): "broad.txt names it, and the manifest does not"}
    names.write_text("c\n")
    with pytest.raises(Mv3dError, match=r"broad.txt: no rendered orbit in there"):
        list_orbits([names])
    names.write_bytes(b"\xff")
    with pytest.raises(Mv3dError, match=r"broad.txt cannot be read as a list of objects"):
        list_orbits([names])


def test_a_fingerprint_changes_with_any_file_of_the_orbit(tmp_path: Path):
    folder = make_orbit(tmp_path, "a/0")
    seen = [fingerprint(folder)]
    assert fingerprint(folder) == seen[0]
    frame = folder / "frames/000.png"
    frame.write_bytes(b"longer picture")
    seen.append(fingerprint(folder))
    os.utime(frame, ns=(0, 0))
    seen.append(fingerprint(folder))
    (folder / "depth").mkdir()
    (folder / "depth/000.png").write_bytes(b"")
    seen.append(fingerprint(folder))
    (folder / "sheet.png").write_bytes(b"for people")
    assert fingerprint(folder) == seen[-1]
    assert len(set(seen)) == 4
    (folder / "frames/001.png").symlink_to("001.png")  # a circle, which whoever reads the orbit will tell
    assert fingerprint(folder) == seen[-1]


def test_collections_above_and_below_a_folder_are_found(tmp_path: Path):
    orbit = make_orbit(tmp_path, "sets/games/a/0")
    assert find_collections(orbit) == find_collections(tmp_path) == []
    write(tmp_path / "sets/manifest-0-of-1.jsonl", {"object_id": "games/a"})
    write(tmp_path / "sets/games/manifest.jsonl", {"object_id": "a"})
    assert find_collections(tmp_path) == [tmp_path / "sets", tmp_path / "sets/games"]
    assert find_collections(orbit) == [tmp_path / "sets/games", tmp_path / "sets"]

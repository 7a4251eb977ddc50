from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import trimesh

from mv3d.errors import Mv3dError
from render.errors import Unusable
from render.scene.scene import make_scene
from render.sources import find_objects

CHAIR, MUG, SIGN, LOST = "a" * 32, "b" * 32, "c" * 32, "d" * 32


def facts(name: str, licence: str, *tags: str) -> dict:
    return {
        "name": name,
        "license": licence,
        "tags": [{"name": tag} for tag in tags],
        "categories": [{"name": "furniture-home"}],
        "user": {"username": "ann", "displayName": "Ann"},
        "viewerUrl": f"https://sketchfab.com/3d-models/{name.lower()}",
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small copy of Objaverse's own layout."""

    def write(name: str, value) -> None:
        path = tmp_path / "hf-objaverse-v1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(json.dumps(value).encode()))

    folders = {CHAIR: "000-000", MUG: "000-001", SIGN: "000-001", LOST: "000-001"}
    write("object-paths.json.gz", {uid: f"glbs/{folder}/{uid}.glb" for uid, folder in folders.items()})
    write("metadata/000-000.json.gz", {CHAIR: facts("Old Chair", "by", "wood", "seat")})
    write(
        "metadata/000-001.json.gz",
        {MUG: facts("Mug", "cc0", "wood"), SIGN: facts("Sign", "by-nc", "wood"), LOST: facts("Lost", "by")},
    )
    write("lvis-annotations.json.gz", {"chair": [CHAIR], "Mug": [MUG], "signboard": [SIGN]})
    box = trimesh.creation.box()
    box.visual.vertex_colors = (200, 20, 20, 255)
    for uid in (CHAIR, MUG, SIGN):
        path = tmp_path / "hf-objaverse-v1" / "glbs" / folders[uid] / f"{uid}.glb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(box.export(file_type="glb"))
    return tmp_path / "hf-objaverse-v1"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Downloads are recorded, and fail."""
    asked: list[str] = []

    def download(repository: str, name: str, **_: object) -> str:
        asked.append(f"{repository}/{name}")
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return asked


def names(query: str, root: Path) -> list[str]:
    return sorted(item.name for item in find_objects(f"objaverse:{query}&root={root}"))


def test_queries_select_by_uid_category_word_and_licence(root: Path, no_network: list[str]) -> None:
    assert names("lvis=chair,mug", root) == ["Mug", "Old Chair"]
    assert names("words=wood", root) == ["Mug", "Old Chair"]
    assert names("words=wood&licence=any", root) == ["Mug", "Old Chair", "Sign"]
    assert names("words=wood seat", root) == ["Old Chair"]
    assert names(f"uids={MUG},{SIGN}&licence=by-nc", root) == ["Sign"]
    (root.parent / "uids.txt").write_text(f"{CHAIR}\n{MUG}\n")
    assert names(f"uids={root.parent / 'uids.txt'}&lvis=mug", root) == ["Mug"]
    assert no_network == []


def test_objects_load_from_the_folder_and_carry_their_licence(root: Path) -> None:
    (chair,) = find_objects(f"objaverse:uids={CHAIR}&root={root}")
    assert chair.object_id == f"objaverse/{CHAIR}"
    assert chair.licence == "CC-BY-4.0"
    assert chair.attribution == "Old Chair by Ann (https://sketchfab.com/3d-models/old chair)"
    assert len(make_scene(chair.load(), linear_colours=chair.linear_colours).corners) == 12


def test_what_is_missing_is_asked_for_and_its_absence_is_the_objects_failure(root: Path, no_network: list[str]) -> None:
    (lost,) = find_objects(f"objaverse:uids={LOST}&root={root}")
    with pytest.raises(Unusable, match="cannot be downloaded: no network"):
        lost.load()
    assert no_network == [f"allenai/objaverse/glbs/000-001/{LOST}.glb"] * 3


def test_a_download_lands_in_the_layout(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, name: str, *, repo_type: str, local_dir: Path) -> None:
        assert repo_type == "dataset"
        (local_dir / name).write_bytes((root / f"glbs/000-000/{CHAIR}.glb").read_bytes())

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    (lost,) = find_objects(f"objaverse:uids={LOST}&root={root}")
    assert len(lost.load().geometry) == 1
    assert (root / f"glbs/000-001/{LOST}.glb").is_file()


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("colour=red", "give uids=, lvis= or words="),
        ("licence=by", "give uids=, lvis= or words="),
        ("lvis=unicorn", "no LVIS category unicorn"),
        ("words=unicorn", "matches no object"),
        (f"uids={SIGN}", "matches no object with licence by or cc0"),
    ],
)
def test_queries_that_find_nothing_say_why(root: Path, query: str, reason: str) -> None:
    with pytest.raises(Mv3dError, match=reason):
        find_objects(f"objaverse:{query}&root={root}")


def test_a_damaged_or_hostile_index_is_refused(root: Path) -> None:
    (root / "metadata/000-000.json.gz").write_bytes(b"nonsense")
    with pytest.raises(Mv3dError, match=r"000-000.json.gz is damaged"):
        find_objects(f"objaverse:uids={CHAIR}&root={root}")
    path = {CHAIR: "glbs/000-001/../../../../etc/passwd"}
    (root / "object-paths.json.gz").write_bytes(gzip.compress(json.dumps(path).encode()))
    (root / "metadata/000-001.json.gz").write_bytes(gzip.compress(json.dumps({CHAIR: facts("x", "by")}).encode()))
    (item,) = find_objects(f"objaverse:uids={CHAIR}&root={root}")
    with pytest.raises((Unusable, ValueError), match="outside"):
        item.load()

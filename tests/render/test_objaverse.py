from __future__ import annotations

import gzip
import json
import socket
import sys
from pathlib import Path
from urllib.error import ContentTooShortError

import pytest
import trimesh

from mv3d.errors import Mv3dError
from render.errors import Unusable
from render.scene.scene import make_scene
from render.sources import find_objects
from render.sources.objaverse_package import INSTALL_COMMAND

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
    """A small copy of Objaverse's own layout, which its package reads."""
    pytest.importorskip("objaverse", reason=INSTALL_COMMAND)

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
    """Downloads are recorded, and fail when a part is there."""
    asked: list[str] = []

    def download(url: str, path: str) -> None:
        asked.append(url.removeprefix("https://huggingface.co/datasets/"))
        Path(path).write_bytes(b"a part")
        raise ContentTooShortError("no\nnetwork", (path, None))  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("urllib.request.urlretrieve", download)
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
    with pytest.raises(Unusable, match=r"cannot be downloaded: .*no network"):
        lost.load()
    assert no_network == [f"allenai/objaverse/resolve/main/glbs/000-001/{LOST}.glb"] * 3
    assert not lost.path.exists()


def test_a_download_lands_in_the_layout_and_is_patient_not_endless_and_silent_on_stdout(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(url: str, path: str) -> None:
        assert url.endswith(f"/main/glbs/000-001/{LOST}.glb")
        assert socket.getdefaulttimeout() == 60
        Path(path).write_bytes((root / f"glbs/000-000/{CHAIR}.glb").read_bytes())

    monkeypatch.setattr("urllib.request.urlretrieve", download)
    (lost,) = find_objects(f"objaverse:uids={LOST}&root={root}")
    for _ in range(2):  # the second time it is there
        assert len(lost.load().geometry) == 1
    assert (root / f"glbs/000-001/{LOST}.glb").is_file()
    assert socket.getdefaulttimeout() is None
    assert capsys.readouterr().out == ""


def test_what_the_package_has_in_its_own_folder_is_read_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("objaverse.BASE_PATH", str(root.parent))
    assert [item.name for item in find_objects("objaverse:lvis=mug")] == ["Mug"]


def test_an_index_that_comes_in_part_is_not_left_there(root: Path, no_network: list[str]) -> None:
    (root / "lvis-annotations.json.gz").unlink()
    with pytest.raises(Mv3dError, match="lvis-annotations.json.gz of Objaverse is not in .* no network"):
        find_objects(f"objaverse:lvis=mug&root={root}")
    assert no_network == ["allenai/objaverse/resolve/main/lvis-annotations.json.gz"] * 3
    assert not (root / "lvis-annotations.json.gz").exists()


def test_without_the_package_its_installation_is_the_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "objaverse", None)
    with pytest.raises(Mv3dError, match=r"^Objaverse is read by its own package: pip install --no-deps objaverse"):
        find_objects("objaverse:lvis=mug")


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
    (root / "lvis-annotations.json.gz").write_bytes(gzip.compress(b"[1]"))
    with pytest.raises(Mv3dError, match=r"lvis-annotations.json.gz is damaged"):
        find_objects(f"objaverse:lvis=mug&root={root}")
    path = {CHAIR: "glbs/000-001/../../../../etc/passwd"}
    (root / "object-paths.json.gz").write_bytes(gzip.compress(json.dumps(path).encode()))
    (root / "metadata/000-001.json.gz").write_bytes(gzip.compress(json.dumps({CHAIR: facts("x", "by")}).encode()))
    (item,) = find_objects(f"objaverse:uids={CHAIR}&root={root}")
    with pytest.raises((Unusable, ValueError), match="outside"):
        item.load()

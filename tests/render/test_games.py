from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mv3d.errors import Mv3dError
from render.errors import Unusable
from render.farm.split import identify
from render.scene.scene import RenderScene, make_scene
from render.sources import SourceObject, find_objects, limit_skins
from render.sources.g3d import read_g3d
from render.sources.pmd import read_pmd
from tests.render.game_files import NO_BONE, g3d, grid, picture, pmd

UNMOVED = (0, 0, 0, 0, 0, 0, 1)
QUARTER_ABOUT_Y = (0, 2, 0, 0, np.sin(np.pi / 4), 0, np.cos(np.pi / 4))
SOLDIER = """<actor version="1">
  <group>
    <variant frequency="1"><mesh>body.dae</mesh></variant>
    <variant frequency="3" file="base.xml"/>
  </group>
  <group>
    <variant frequency="5"><textures><texture file="{skin}.png" name="baseTex"/></textures></variant>
    <variant frequency="2"><textures><texture file="rare.png" name="baseTex"/></textures></variant>
  </group>
  <material>{material}</material>
</actor>"""
BASE = """<variant><mesh>body.dae</mesh><props><prop actor="props/hat.xml" attachpoint="head"/>
  <prop actor="particle/fire.xml" attachpoint="head"/></props></variant>"""
HAT = """<qualitylevels><actor inline=""/><inline><group><variant><mesh>hat.dae</mesh><textures>
  <texture file="hat.png" name="baseTex"/></textures></variant></group></inline></qualitylevels>"""


@pytest.fixture
def zeroad(tmp_path: Path) -> Path:
    """Two soldiers with one body and other skins, the second without a hat, and a hat that hangs on a bone."""
    archive = tmp_path / "data" / "public.zip"
    archive.parent.mkdir()
    vertices, uv, faces = grid()
    body = pmd(vertices, uv, faces, bones=[QUARTER_ABOUT_Y], props=[("head", UNMOVED, 0), ("hand", UNMOVED, NO_BONE)])
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in {
            "actors/units/soldier_a.xml": SOLDIER.format(skin="plain", material="player_trans.xml"),
            "actors/units/soldier_b.xml": SOLDIER.format(skin="other", material="basic_trans.xml"),
            "actors/units/soldier_c.xml": SOLDIER.format(skin="plain", material="player_trans.xml"),
            "actors/units/broken.xml": "<actor><group>",
            "actors/units/lost.xml": SOLDIER.format(skin="nowhere", material="default.xml"),
            "actors/props/hat.xml": HAT,
            "variants/base.xml": BASE,
        }.items():
            file.writestr(f"art/{name}", text)
        file.writestr("art/meshes/body.dae.cached.pmd", body)
        file.writestr("art/meshes/hat.dae.cached.pmd", pmd(vertices * 0.5, uv, faces))
        for name, colours in {
            "plain": ((200, 0, 0, 255), (9, 9, 9, 0)),
            "other": ((0, 200, 0, 255), (0, 0, 200, 0)),
            "hat": ((0, 0, 0, 255), (250, 250, 250, 255)),
            "rare": ((1, 2, 3, 255), (4, 5, 6, 255)),
        }.items():
            file.writestr(f"art/textures/skins/{name}.png.cached.dds", picture(*colours))
    return archive


def scene_of(item: SourceObject) -> RenderScene:
    return make_scene(item.load(), linear_colours=item.linear_colours)


def test_actors_are_one_object_for_each_mesh_and_skin(zeroad: Path) -> None:
    objects = find_objects(zeroad.parent)
    names = {item.object_id for item in objects}
    damaged = {"0ad/units/broken", "0ad/units/lost"}
    assert names == {"0ad/units/soldier_a", "0ad/units/soldier_b", "0ad/props/hat"} | damaged
    for item in objects:
        if item.object_id in damaged:
            with pytest.raises(Unusable, match="missing or damaged"):
                item.load()
    assert objects == find_objects(zeroad)
    assert {item.licence for item in objects} == {"CC-BY-SA-3.0"}
    assert all("Wildfire Games" in (item.attribution or "") for item in objects)
    bodies = [item for item in objects if item.object_id.startswith("0ad/units/soldier")]
    assert len({item.shape for item in bodies}) == 1
    assert len(limit_skins(objects, 1)) == 3  # the body, the hat and the broken one


def test_actors_wear_their_props_on_their_bones_and_stand_upright(zeroad: Path) -> None:
    soldier, without_alpha = (
        next(item for item in find_objects(zeroad) if item.object_id.endswith(end)) for end in ("_a", "_b")
    )
    scene = scene_of(soldier)
    assert len(scene.corners) == 2 * 128
    body, hat = np.ptp(scene.corners[:128], axis=(0, 1)), np.ptp(scene.corners[128:], axis=(0, 1))
    assert body.argmax() == 2  # as high as it was in the file, where Y is up
    assert hat[1] == pytest.approx(body[0] / 2, rel=1e-5)  # the bone turned its width from X to Y
    assert scene.corners[128:, :, 2].min() == pytest.approx(scene.corners[:128, :, 2].max(), abs=1e-5)
    assert scene.uv[scene.corners[..., 2] == scene.corners[:128, :, 2].min()][0, 1] == 0
    player = scene.textures[0]
    assert (player[..., 3] == 255).all()
    assert tuple(player[0, 0, :3]) == (200, 0, 0)
    assert tuple(player[7, 0, :3]) not in ((9, 9, 9), (0, 0, 0))  # a player's colour where alpha was 0
    assert scene_of(without_alpha).textures[0][7, 0, 3] == 0


def test_an_actors_shape_is_its_body_whatever_it_wears(zeroad: Path) -> None:
    objects = {item.object_id: item for item in find_objects(zeroad)}
    soldiers = [objects[f"0ad/units/soldier_{k}"] for k in "ab"]
    first, second = (identify(item, scene_of(item)) for item in soldiers)
    assert first == second
    with zipfile.ZipFile(zeroad, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("art/variants/base.xml", "<variant><mesh>body.dae</mesh></variant>")
    bare = zeroad.with_name("bare") / "public.zip"
    bare.parent.mkdir()
    bare.write_bytes(zeroad.read_bytes())
    item = next(item for item in find_objects(bare) if item.object_id == "0ad/units/soldier_a")
    assert len(scene_of(item).corners) == 128
    assert identify(item, scene_of(item)) == first


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (b'frequency="5"', b'frequency="often"', "'often' where a number should be"),
        (b"<material>", b"<group><variant><color>1 2 nan</color></variant></group><material>", "'nan' where a number"),
        (b"<group>", b"<gruop>", "missing or damaged"),
    ],
)
def test_a_damaged_actor_is_listed_so_that_it_is_reported(zeroad: Path, good: bytes, bad: bytes, reason: str) -> None:
    (item,) = _with_member(zeroad, "art/actors/units/soldier_a.xml", lambda data: data.replace(good, bad))
    with pytest.raises(Unusable, match=reason):
        item.load()


def test_a_member_that_does_not_unpack_is_that_objects_failure_alone(zeroad: Path) -> None:
    name = "art/actors/units/soldier_a.xml"
    with zipfile.ZipFile(zeroad) as archive:
        offset = archive.getinfo(name).header_offset + 30 + len(name) + 40
    data = bytearray(zeroad.read_bytes())
    data[offset] ^= 255
    damaged = zeroad.with_name("damaged") / "public.zip"
    damaged.parent.mkdir()
    damaged.write_bytes(data)
    items = {item.object_id: item for item in find_objects(damaged)}
    with pytest.raises(Unusable, match=r"soldier_a.xml is damaged in its archive"):
        items["0ad/units/soldier_a"].load()
    assert len(scene_of(items["0ad/units/soldier_b"]).corners) == 2 * 128


def _with_member(archive: Path, name: str, change: Callable[[bytes], bytes]) -> list[SourceObject]:
    """The objects of one actor in a copy of an archive in which that actor's file is changed."""
    copy = archive.with_name("changed") / "public.zip"
    copy.parent.mkdir()
    with zipfile.ZipFile(archive) as before, zipfile.ZipFile(copy, "w") as after:
        for member in before.namelist():
            data = before.read(member)
            after.writestr(member, change(data) if member == name else data)
    return [item for item in find_objects(copy) if item.member == name]


def test_an_archive_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "public.zip").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(Mv3dError, match=r"public.zip is no zip archive"):
        find_objects(tmp_path)
    with zipfile.ZipFile(tmp_path / "public.zip", "w") as file:
        file.writestr("art/readme.txt", "")
    with pytest.raises(Mv3dError, match="holds no object"):
        find_objects(tmp_path)


@pytest.fixture
def megaglest(tmp_path: Path) -> Path:
    """An archer with three animations, his twin in another coat, and things that are left out."""
    units = tmp_path / "techs" / "archer" / "models"
    units.mkdir(parents=True)
    vertices, uv, faces = grid()
    moved = np.stack([vertices * (1, 0.9, 1), vertices])
    for name, frames, coat in (
        ("archer_walking", moved, "coat.png"),
        ("archer_standing", vertices[None], "coat.png"),
        ("archer_dying", moved, "coat.png"),
        ("baron", moved, "blue.png"),
    ):
        (units / f"{name}.g3d").write_bytes(g3d((frames, uv, faces, coat, 1), (frames, uv, faces, coat, 8)))
    (units / "arrow.g3d").write_bytes(g3d((vertices[None], uv, faces[:9], None, 0)))
    (units / "bare.g3d").write_bytes(g3d((vertices[None], uv, faces, None, 0)))
    (units / "coat.png").write_bytes(picture((200, 0, 0, 255), (9, 9, 9, 0), "PNG"))
    (units / "blue.png").write_bytes(picture((0, 0, 200, 255), (9, 9, 9, 0), "PNG"))
    return tmp_path


def test_models_are_one_object_for_each_shape_and_skin(megaglest: Path) -> None:
    objects = {item.object_id: item for item in find_objects(megaglest)}
    assert set(objects) == {f"megaglest/techs/archer/{name}" for name in ("archer_standing", "baron", "bare")}
    archer, baron = objects["megaglest/techs/archer/archer_standing"], objects["megaglest/techs/archer/baron"]
    assert archer.shape == baron.shape != objects["megaglest/techs/archer/bare"].shape
    scene = scene_of(archer)
    assert len(scene.corners) == 128  # the glow is left out
    assert np.ptp(scene.corners, axis=(0, 1)).argmax() == 2
    assert tuple(scene.textures[0][0, 0]) == (200, 0, 0, 255)
    assert tuple(scene.textures[0][7, 0, :3]) != (9, 9, 9)
    bare = scene_of(objects["megaglest/techs/archer/bare"])
    assert bare.texture[0] == -1
    assert bare.colours[0, 0, 0] > bare.colours[0, 0, 1] > bare.colours[0, 0, 2] == 0


def test_a_damaged_model_is_listed_so_that_it_is_reported(megaglest: Path) -> None:
    path = megaglest / "techs" / "archer" / "models" / "torn.g3d"
    path.write_bytes(b"G3D\x04 and no more")
    (item,) = (item for item in find_objects(megaglest) if item.name == "torn")
    with pytest.raises(Unusable, match=r"torn.g3d ends early"):
        item.load()


def test_a_model_without_its_picture_is_unusable(megaglest: Path) -> None:
    item = next(item for item in find_objects(megaglest) if item.name == "baron")
    (item.path.parent / "blue.png").unlink()
    with pytest.raises(Unusable, match=r"texture blue.png is missing"):
        item.load()


@pytest.mark.parametrize(
    ("read", "whole"),
    [
        (read_pmd, pmd(*grid(2), props=[("root", UNMOVED, 255)])),
        (read_g3d, g3d((*[part[None] if k == 0 else part for k, part in enumerate(grid(2))], None, 0))),
    ],
)
def test_every_cut_file_is_unusable_and_nothing_else(read, whole: bytes) -> None:
    read(whole)
    for end in range(0, len(whole), 3):
        with pytest.raises(Unusable):
            read(whole[:end])
    with pytest.raises(Unusable, match="of version 4"):
        read(whole.replace(b"PSMD\x04", b"PSMD\x03").replace(b"G3D\x04", b"G3D\x03"))


def test_faces_and_bones_that_are_not_there_are_unusable() -> None:
    vertices, uv, faces = grid(2)
    with pytest.raises(Unusable, match="not there"):
        read_pmd(pmd(vertices, uv, faces + 1))
    with pytest.raises(Unusable, match="bone that is not there"):
        read_pmd(pmd(vertices, uv, faces, props=[("root", UNMOVED, 3)]))
    with pytest.raises(Unusable, match="not there"):
        read_g3d(g3d((vertices[None], uv, faces + 1, None, 0)))

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from mv3d.errors import Mv3dError
from render.errors import Unusable
from render.scene.scene import make_scene
from render.sources import SourceObject, find_objects
from render.sources.loading import lacking_files


def test_folders_are_searched_through_in_order_with_safe_unique_ids(meshes: Path) -> None:
    (meshes / "Sub Dir").mkdir()
    for name in ("Sub Dir/Stühle & Co.ply", "cube.stl", "readme.txt"):
        (meshes / name).write_bytes(b"")
    ids = [item.object_id for item in find_objects(meshes)]
    assert ids == ["sub-dir/st-hle-co", "cube", "cube-2"]
    assert find_objects(meshes / "cube.obj")[0].object_id == "cube"


def test_library_entries_carry_name_licence_and_author(library: Path) -> None:
    first, second = find_objects(library)
    assert (first.object_id, second.object_id) == ("small-shop/box-1", "small-shop/box-1-2")
    assert (first.name, first.category, first.licence) == ("Café box", "Boxes", "CC0 © nobody")
    assert first.attribution == "Café box by Ann (Small shop, www.example.org)"
    assert find_objects(library.parent) == [first, second]


def test_library_models_load_with_materials_and_the_catalogues_rotation(library: Path) -> None:
    upright, lying = (make_scene(item.load(), linear_colours=False) for item in find_objects(library))
    np.testing.assert_allclose(np.ptp(upright.corners, axis=(0, 1)), (0.5, 0.5, 1), atol=1e-6)
    np.testing.assert_allclose(np.ptp(lying.corners, axis=(0, 1)), (0.5, 1, 0.5), atol=1e-6)
    assert len(np.unique(upright.colours[:, 0], axis=0)) == 6


def _not_a_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 nonsense")


def _zip_without_catalogue(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")


def _zip_without_its_model(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "model#1=/chair.obj\nname#1=Chair\n")


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (_not_a_zip, "no Sweet Home 3D furniture library"),
        (_zip_without_catalogue, "no Sweet Home 3D furniture library"),
        (_zip_without_its_model, "lists chair.obj, which is not in the file"),
    ],
)
def test_bad_libraries_are_refused_in_one_line(tmp_path: Path, write, reason: str) -> None:
    path = tmp_path / "bad.sh3f"
    write(path)
    with pytest.raises(Mv3dError, match=reason) as caught:
        find_objects(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rotation_that_is_none_is_that_models_failure_alone(library: Path) -> None:
    damaged = library.with_name("damaged.sh3f")
    with zipfile.ZipFile(library) as before, zipfile.ZipFile(damaged, "w") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(b" 0 -1 0", b" 0 -1"))
    first, second = find_objects(damaged)
    first.load()
    with pytest.raises(Unusable, match="is no 3x3 matrix"):
        second.load()


@pytest.mark.parametrize("where", ["a folder", "a library"])
def test_files_that_a_model_names_and_lacks_are_noted(where: str, meshes: Path, library: Path) -> None:
    whole = find_objects(meshes if where == "a folder" else library)[0].load()
    assert lacking_files(whole) == []
    mtl = "newmtl front\nmap_Kd lost.png\nnewmtl back\nKd 1 0 0\n"
    if where == "a folder":
        (meshes / "cube.mtl").write_text(mtl)
        item = find_objects(meshes)[0]
    else:
        item = _library_with(library, "shop/box/box.mtl", mtl)
    assert lacking_files(item.load()) == ["lost.png"]


def test_a_gltf_picture_that_is_not_there_is_noted(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), image=Image.new("RGB", (4, 4), "red"))
    files = box.export(file_type="gltf")
    header = json.loads(files["model.gltf"])
    header["images"] = [{"uri": "skin.png"}]
    for name, data in (files | {"model.gltf": json.dumps(header).encode()}).items():
        (tmp_path / name).write_bytes(data)
    item = find_objects(tmp_path / "model.gltf")[0]
    assert lacking_files(item.load()) == ["skin.png"]
    Image.new("RGB", (4, 4), "red").save(tmp_path / "skin.png")
    assert lacking_files(item.load()) == []


def _library_with(library: Path, member: str, text: str) -> SourceObject:
    changed = library.with_name("changed.sh3f")
    with zipfile.ZipFile(library) as before, zipfile.ZipFile(changed, "w") as after:
        for name in before.namelist():
            after.writestr(name, text if name == member else before.read(name))
    return find_objects(changed)[0]


def test_sources_without_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Mv3dError, match="does not exist"):
        find_objects(tmp_path / "nowhere")
    with pytest.raises(Mv3dError, match="holds no object"):
        find_objects(tmp_path)

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

CUBE_COLOURS = {"front": "1 0 0", "right": "0 1 0", "back": "0 0 1", "left": "1 1 0", "top": "1 1 1", "bottom": "0 1 1"}
_CUBE_FACES = {  # Y up, front is +Z, counter-clockwise seen from outside
    "front": "5 6 8 7",
    "right": "6 2 4 8",
    "back": "2 1 3 4",
    "left": "1 5 7 3",
    "top": "7 8 4 3",
    "bottom": "1 2 6 5",
}


def make_cube_obj(size: tuple[float, float, float] = (1, 1, 1), materials: str = "cube.mtl") -> str:
    corners = [(x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    lines = [f"mtllib {materials}"]
    lines += [f"v {x * size[0]} {y * size[1]} {z * size[2]}" for x, y, z in corners]
    for side, face in _CUBE_FACES.items():
        lines += [f"usemtl {side}", f"f {face}"]
    return "\n".join(lines) + "\n"


def make_cube_mtl() -> str:
    return "".join(f"newmtl {side}\nKd {colour}\n" for side, colour in CUBE_COLOURS.items())


@pytest.fixture
def cube_obj() -> Callable[..., str]:
    """Text of an OBJ file of a cuboid, one material per side."""
    return make_cube_obj


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    """A folder with one good object; tests add bad ones."""
    folder = tmp_path / "meshes"
    folder.mkdir()
    (folder / "cube.obj").write_text(make_cube_obj())
    (folder / "cube.mtl").write_text(make_cube_mtl())
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A furniture library of a box and the same box lying on its back."""
    path = tmp_path / "Small Shop.sh3f"
    catalogue = """
# a comment with = in it
name=Small shop
license=CC0 \\u00a9 nobody
provider=www.example.org
id#1=Shop#Box 1
name#1=Caf\xe9 box
category#1=Boxes
model#1=/shop/box/box.obj
creator#1=Ann
id#2=Shop#Box 1
name#2=Lying box
model#2=/shop/box/box.obj
modelRotation#2=1 0 0 0 0 1 0 -1 0
"""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", catalogue.encode("latin-1"))
        archive.writestr("shop/box/box.obj", make_cube_obj((1, 2, 1), "BOX.mtl"))
        archive.writestr("shop/box/box.mtl", make_cube_mtl())
    return path

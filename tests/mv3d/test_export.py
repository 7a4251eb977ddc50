from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from mv3d.errors import Mv3dError
from mv3d.export import load_mesh, save_mesh
from mv3d.mesh import Mesh, Texture
from tests.mv3d.blocks import make_block


@pytest.fixture
def block() -> Mesh:
    return make_block()


def corner_order(mesh: Mesh) -> np.ndarray:
    """The triangles' corners in an order that does not depend on how vertices are numbered."""
    return mesh.vertices[mesh.faces].reshape(-1, 9)


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".stl"])
def test_every_format_gives_back_the_same_closed_triangles(block: Mesh, tmp_path: Path, suffix: str) -> None:
    save_mesh(block, tmp_path / f"block{suffix}")
    again = load_mesh(tmp_path / f"block{suffix}")
    assert block.is_watertight
    assert again.is_watertight
    np.testing.assert_allclose(corner_order(again), corner_order(block), atol=1e-6)


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_textures_come_back_on_the_same_corners(block: Mesh, tmp_path: Path, suffix: str) -> None:
    save_mesh(block, tmp_path / f"block{suffix}")
    again = load_mesh(tmp_path / f"block{suffix}")
    assert block.texture is not None
    assert again.texture is not None
    np.testing.assert_array_equal(again.texture.pixels, block.texture.pixels)
    np.testing.assert_allclose(again.texture.corner_uv, block.texture.corner_uv, atol=1e-6)


def test_normals_are_smooth_but_for_edges():
    ball = trimesh.creation.icosphere(3)
    smooth = Mesh(np.asarray(ball.vertices), np.asarray(ball.faces))
    np.testing.assert_allclose(smooth.corner_normals(), smooth.vertices[smooth.faces], atol=0.02)
    block = make_block()
    corners = block.vertices[block.faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    np.testing.assert_allclose(block.corner_normals(), np.repeat(flat[:, None], 3, axis=1), atol=1e-12)


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_normals_are_written(tmp_path: Path, suffix: str):
    ball = trimesh.creation.icosphere(2)
    mesh = Mesh(np.asarray(ball.vertices) * [1, 1.2, 1.1] + [5, 0, 0], np.asarray(ball.faces))
    save_mesh(mesh, tmp_path / f"ball{suffix}")
    content = (tmp_path / f"ball{suffix}").read_bytes()
    assert {".glb": b'"NORMAL"', ".obj": b"\nvn ", ".ply": b"property float nx"}[suffix] in content
    loaded = trimesh.load_scene(tmp_path / f"ball{suffix}", process=False).to_mesh()
    up = [0, 0, 1] if suffix == ".ply" else [0, 1, 0]
    top = loaded.vertices[:, up.index(1)].argmax()
    np.testing.assert_allclose(loaded.vertex_normals[top], up, atol=0.05)


def test_gltf_stands_upright_with_its_front_to_the_front(block: Mesh, tmp_path: Path) -> None:
    save_mesh(block, tmp_path / "block.glb")
    stored = trimesh.load_scene(tmp_path / "block.glb").to_mesh()
    low, high = block.extent
    np.testing.assert_allclose(stored.bounds, [[low[0], low[2], -high[1]], [high[0], high[2], -low[1]]], atol=1e-6)
    assert stored.visual.material.metallicFactor == 0
    assert stored.visual.material.roughnessFactor == 1


def test_ply_has_the_texture_s_colours_at_its_vertices(block: Mesh, tmp_path: Path) -> None:
    plain = replace(block, texture=Texture(np.full((4, 4, 3), (10, 200, 90), np.uint8), block.texture.corner_uv))
    save_mesh(plain, tmp_path / "block.ply")
    stored = trimesh.load_scene(tmp_path / "block.ply", process=False).to_mesh()
    assert (stored.visual.vertex_colors == (10, 200, 90, 255)).all()


def test_files_beside_an_obj_are_named_after_it(block: Mesh, tmp_path: Path) -> None:
    save_mesh(block, tmp_path / "a chair.obj")
    pictures = [path.name for path in tmp_path.iterdir() if path.suffix == ".png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a chair.mtl", "a chair.obj", *pictures])
    assert pictures == ["a chair_texture.png"]
    again = load_mesh(tmp_path / "a chair.obj")
    assert again.texture is not None


def test_an_obj_s_material_leaves_the_texture_s_colours_as_they_are_and_has_no_gloss(
    block: Mesh, tmp_path: Path
) -> None:
    save_mesh(block, tmp_path / "block.obj")
    lines = [line.split() for line in (tmp_path / "block.mtl").read_text().splitlines() if line]
    values = {name: [float(value) for value in given] for name, *given in lines if name in ("Kd", "Ka", "Ks")}
    assert values == {"Kd": [1, 1, 1], "Ka": [1, 1, 1], "Ks": [0, 0, 0]}


def test_meshes_of_one_name_in_several_formats_keep_their_own_textures(block: Mesh, tmp_path: Path) -> None:
    pytest.importorskip("pxr", reason="USD needs usd-core")
    from pxr import Usd, UsdShade

    assert block.texture is not None
    levels = {".obj": 40, ".usda": 120, ".usdc": 200}
    for suffix, level in levels.items():
        pixels = np.full_like(block.texture.pixels, level)
        save_mesh(replace(block, texture=replace(block.texture, pixels=pixels)), tmp_path / f"block{suffix}")
    again = load_mesh(tmp_path / "block.obj").texture
    assert again is not None
    assert (again.pixels == levels[".obj"]).all()
    for suffix in (".usda", ".usdc"):
        stage = Usd.Stage.Open(str(tmp_path / f"block{suffix}"))
        shaders = [UsdShade.Shader(prim) for prim in stage.Traverse() if prim.IsA(UsdShade.Shader)]
        (texture,) = [shader for shader in shaders if shader.GetIdAttr().Get() == "UsdUVTexture"]
        with Image.open(texture.GetInput("file").Get().resolvedPath) as picture:
            assert (np.asarray(picture) == levels[suffix]).all()


def test_an_unknown_format_is_refused_with_the_known_ones(block: Mesh, tmp_path: Path) -> None:
    for path in (tmp_path / "block.fbx", tmp_path / "block"):
        with pytest.raises(Mv3dError, match=r"\.glb, \.obj, \.ply, \.stl"):
            save_mesh(block, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"glTF\x02\x00\x00\x00 and no more"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.glb"
    with pytest.raises(Mv3dError, match=r"broken\.glb is missing"):
        load_mesh(path)
    path.write_bytes(content)
    with pytest.raises(Mv3dError, match=r"broken\.glb"):
        load_mesh(path)

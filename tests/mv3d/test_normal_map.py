"""Normal maps: the right way round, nearer to the finer surface, in every format that holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from mv3d.blender import RenderSettings, render_in_blender
from mv3d.cameras import Camera, static_orbit
from mv3d.errors import Mv3dError
from mv3d.export import check_all_free, load_mesh, save_mesh
from mv3d.lift import LiftSettings, texture_surface
from mv3d.lift.normal_map import bake_normals
from mv3d.lift.surface import simplify_surface
from mv3d.lift.texels import Texels
from mv3d.lift.unwrap import unwrap
from mv3d.mesh import Mesh, Texture
from tests.mv3d.blocks import CRATE, view_boxes

SIZE_PX = 256
STEEP = 0.05


def square(height_x: float = 0.0, height_y: float = 0.0) -> Mesh:
    """One square of two triangles that looks up, around the origin; it rises by so much along X and Y."""
    x, y = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]).T
    return Mesh(np.stack([x, y, height_x * x + height_y * y], axis=1), np.array([[0, 1, 2], [0, 2, 3]]))


def baked(mesh: Mesh, corner_uv: np.ndarray, finer: Mesh) -> np.ndarray:
    normals = bake_normals(mesh, corner_uv, finer, Texels.of(corner_uv, 16))
    assert normals is not None
    return normals.reshape(-1, 3)


@pytest.mark.parametrize(
    ("finer", "expected"),
    [(square(height_x=STEEP), (121, 128, 255)), (square(height_y=STEEP), (128, 121, 255))],
)
@pytest.mark.parametrize("turn", [np.eye(3), np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])])
def test_what_rises_along_u_leans_back_in_red_and_along_v_in_green(finer: Mesh, expected: tuple, turn: np.ndarray):
    flat = square()
    uv = flat.vertices[flat.faces][..., :2] + 0.5
    flat, finer = (replace(mesh, vertices=mesh.vertices @ turn.T) for mesh in (flat, finer))
    assert np.abs(baked(flat, uv, finer).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("turned", "expected"),
    [
        (lambda x, y: (1 - x, y), (134, 128, 255)),  # the picture mirrored: u runs against X
        (lambda x, y: (1 - x, 1 - y), (134, 128, 255)),  # turned around
        (lambda x, y: (y, 1 - x), (128, 134, 255)),  # a quarter: v runs against X
        (lambda x, y: (x / 4, y), (121, 128, 255)),  # squeezed
    ],
)
def test_the_map_follows_the_layout(turned, expected: tuple):
    flat = square()
    x, y = np.moveaxis(flat.vertices[flat.faces][..., :2] + 0.5, -1, 0)
    uv = np.stack(turned(x, y), axis=-1)
    assert np.abs(baked(flat, uv, square(height_x=STEEP)).astype(int) - expected).max() <= 1


def test_a_map_that_nobody_would_see_is_not_made():
    flat = square()
    uv = flat.vertices[flat.faces][..., :2] + 0.5
    assert bake_normals(flat, uv, square(height_x=0.02), Texels.of(uv, 16)) is None


def bumpy_ball() -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions=4)
    bumps = np.sin(9 * ball.vertices).prod(axis=1)
    return Mesh(np.asarray(ball.vertices) * (0.4 + 0.02 * bumps[:, None]), np.asarray(ball.faces))


def simplified(finer: Mesh, faces: int) -> Mesh:
    """Grey, with the map of what it has lost."""
    few = simplify_surface(finer, faces)
    uv = unwrap(few, SIZE_PX)
    normals = bake_normals(few, uv, finer, Texels.of(uv, SIZE_PX))
    return replace(few, texture=Texture(np.full((8, 8, 3), 180, np.uint8), uv, normals))


@pytest.fixture(scope="module")
def ball() -> Mesh:
    return simplified(bumpy_ball(), 500)


def test_glb_keeps_the_map(ball: Mesh, tmp_path: Path):
    assert ball.texture is not None
    assert ball.texture.normals is not None
    save_mesh(ball, tmp_path / "ball.glb")
    texture = load_mesh(tmp_path / "ball.glb").texture
    assert texture is not None
    np.testing.assert_array_equal(texture.normals, ball.texture.normals)
    save_mesh(replace(ball, texture=replace(ball.texture, normals=None)), tmp_path / "plain.glb")
    texture = load_mesh(tmp_path / "plain.glb").texture
    assert texture is not None
    assert texture.normals is None


def test_obj_and_usd_keep_the_map_beside_them(ball: Mesh, tmp_path: Path):
    assert ball.texture is not None
    save_mesh(ball, tmp_path / "ball.obj")
    assert "norm ball_normals.png" in (tmp_path / "ball.mtl").read_text().splitlines()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "ball_normals.png")), ball.texture.normals)
    for name in ("ball.obj", "ball.mtl", "ball_texture.png"):
        (tmp_path / name).unlink()
    with pytest.raises(Mv3dError, match=r"ball_normals\.png"):
        check_all_free(tmp_path / "ball.obj", overwrite=False)
    pytest.importorskip("pxr", reason="USD needs usd-core")
    from pxr import Usd, UsdShade, UsdValidation  # pyright: ignore[reportMissingImports]

    save_mesh(ball, tmp_path / "ball.usda")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "ball_usda_normals.png")), ball.texture.normals)
    stage = Usd.Stage.Open(str(tmp_path / "ball.usda"))
    (surface,) = [UsdShade.Shader(prim) for prim in stage.Traverse() if prim.GetName() == "surface"]
    assert surface.GetInput("normal").HasConnectedSource()
    context = UsdValidation.ValidationContext(UsdValidation.ValidationRegistry().GetOrLoadAllValidators())
    assert [error.GetMessage() for error in context.Validate(stage)] == []


def test_a_surface_with_fewer_triangles_than_asked_for_is_its_own_finest():
    orbit = view_boxes([CRATE], static_orbit(4, 20, size_px=32))
    ball = bumpy_ball()
    few = simplify_surface(ball, 600)
    textures = [
        texture_surface(surface, orbit, LiftSettings(faces=600, texture_px=64)).texture for surface in (ball, few)
    ]
    assert textures[0] is not None
    assert textures[0].normals is not None
    assert textures[1] is not None
    assert textures[1].normals is None


@pytest.mark.slow
@pytest.mark.blender
@pytest.mark.usefixtures("blender")
@pytest.mark.parametrize("suffix", [".glb", ".usdz"])
def test_in_blender_it_is_shaded_as_the_finer_one(ball: Mesh, tmp_path: Path, suffix: str):
    if suffix == ".usdz":
        pytest.importorskip("pxr", reason="USD needs usd-core")
    finer = bumpy_ball()
    assert ball.texture is not None
    grey = Texture(ball.texture.pixels, np.zeros((len(finer.faces), 3, 2)))
    meshes = {
        "finer": replace(finer, texture=grey),
        "with": ball,
        "without": replace(ball, texture=replace(ball.texture, normals=None)),
    }
    cameras = [Camera.looking_at_origin(azimuth, 20, size_px=96) for azimuth in (0, 140)]
    seen = {}
    for name, mesh in meshes.items():
        save_mesh(mesh, tmp_path / f"{name}{suffix}")
        settings = RenderSettings(shading="lit", samples=16)
        seen[name] = render_in_blender(tmp_path / f"{name}{suffix}", cameras, settings)
    inside = np.min([views[..., 3] for views in seen.values()], axis=0) > 0.99
    wrong = {name: np.sqrt(((seen[name] - seen["finer"])[..., :3][inside] ** 2).mean()) for name in ("with", "without")}
    assert wrong["with"] < 0.5 * wrong["without"], wrong

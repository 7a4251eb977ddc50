from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import ConvexHull

from mv3d.cameras import Camera, static_orbit
from mv3d.srgb import linear_to_srgb, srgb_to_linear
from render.scene.lights import make_lights
from render.scene.raycast import render_orbit
from render.scene.scene import RenderScene, make_scene
from render.sources import find_objects

RED, GREEN, BLUE, WHITE = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)


def load_scene(path: Path) -> RenderScene:
    item = find_objects(path)[0]
    return make_scene(item.load(), linear_colours=item.linear_colours)


def make_quads(
    *quads: tuple[float, tuple[float, float, float, float]], pictures: tuple[np.ndarray, ...] = ()
) -> RenderScene:
    """Unit squares that face the camera at azimuth 0, each at a y with a linear RGBA; picture k goes on square k."""
    square = np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]])
    corners = np.concatenate([(square + [0, y, 0])[[[0, 1, 2], [0, 2, 3]]] for y, _ in quads])
    uv = np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 1]])[[[0, 1, 2], [0, 2, 3]]], (len(quads), 1, 1))
    colours = np.repeat([np.broadcast_to(rgba, (3, 4)) for _, rgba in quads], 2, axis=0)
    texture = np.repeat([k if k < len(pictures) else -1 for k in range(len(quads))], 2)
    return RenderScene(
        corners.astype(np.float32),
        np.broadcast_to(np.float32([0, -1, 0]), corners.shape),
        colours.astype(np.float32),
        uv.astype(np.float32),
        texture.astype(np.int32),
        pictures,
    )


def look(scene: RenderScene, azimuth_deg: float = 0, size_px: int = 32, samples_per_side: int = 2) -> np.ndarray:
    camera = Camera.looking_at_origin(azimuth_deg, 0, 3, size_px=size_px)
    return render_orbit(scene, [camera], None, samples_per_side)[0]


def test_each_azimuth_sees_its_own_face_of_a_y_up_cube(meshes: Path) -> None:
    frames = render_orbit(load_scene(meshes), static_orbit(4, 0, 3, size_px=32), None)
    np.testing.assert_allclose(frames[:, 16, 16], [(*c, 1) for c in (RED, GREEN, BLUE, (1, 1, 0))], atol=1e-5)
    assert (frames[:, 0, 0] == 0).all()


def test_the_top_is_seen_from_above(meshes: Path) -> None:
    camera = Camera.looking_at_origin(30, 89, 3, size_px=32)
    np.testing.assert_allclose(render_orbit(load_scene(meshes), [camera], None)[0, 16, 16], (1, 1, 1, 1), atol=1e-5)


def test_turning_the_object_equals_turning_the_camera_the_other_way(meshes: Path) -> None:
    scene = load_scene(meshes)
    np.testing.assert_allclose(look(scene.turned(90))[16, 16], look(scene, -90)[16, 16], atol=1e-5)
    np.testing.assert_allclose(look(scene.turned(25)), look(scene, -25), atol=0.26)  # edges fall on other samples
    assert np.abs(look(scene.turned(25)) - look(scene, -25)).mean() < 2e-3


@pytest.mark.parametrize(("azimuth_deg", "elevation_deg"), [(7, 3), (33, 20), (200, -40)])
def test_silhouette_is_the_projected_hull(meshes: Path, azimuth_deg: float, elevation_deg: float) -> None:
    scene = load_scene(meshes)
    camera = Camera.looking_at_origin(azimuth_deg, elevation_deg, 3, size_px=128)
    alpha = render_orbit(scene, [camera], None, samples_per_side=4)[0, ..., 3]
    pixels, _ = camera.project(scene.corners.reshape(-1, 3))
    hull = ConvexHull(pixels)
    assert alpha.sum() == pytest.approx(hull.volume, rel=2e-3)
    centres = camera.pixel_grid().reshape(-1, 2)
    outside = (centres @ hull.equations[:, :2].T + hull.equations[:, 2]).max(axis=1)
    assert (alpha.reshape(-1)[outside < -1] == 1).all()
    assert (alpha.reshape(-1)[outside > 1] == 0).all()


def test_every_view_of_an_orbit_at_the_fitting_radius_lies_in_the_frame(meshes: Path) -> None:
    scene = load_scene(meshes)
    radius = scene.radius / np.sin(np.radians(33.8 / 2))
    frames = render_orbit(scene.turned(45), static_orbit(4, 35.26, radius, size_px=64), None)
    covered = np.argwhere(frames[..., 3].max(axis=0) > 0)
    assert max(covered.max(), 63 - covered.min()) == 63  # a corner touches the border,
    beyond = render_orbit(scene, [Camera.looking_at_origin(45, 35.26, radius, size_px=64, fov_deg=50)], None)[0, ..., 3]
    inner = 32 * np.tan(np.radians(33.8 / 2)) / np.tan(np.radians(25))
    away = np.abs(np.argwhere(beyond > 0) + 0.5 - 32).max()
    assert away <= inner + 0.5  # and nothing of it is outside


def test_uv_origin_is_the_lower_left_corner() -> None:
    picture = np.uint8([[(255, 0, 0, 255), (0, 255, 0, 255)], [(0, 0, 255, 255), (255, 255, 255, 255)]])
    frame = look(make_quads((0, (1, 1, 1, 1)), pictures=(picture.repeat(8, axis=0).repeat(8, axis=1),)))
    seen = frame[[12, 12, 20, 20], [12, 20, 12, 20], :3]
    np.testing.assert_allclose(seen, (RED, GREEN, BLUE, WHITE), atol=1e-5)


@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_textures_of_files_come_out_upright(tmp_path: Path, suffix: str) -> None:
    picture = Image.fromarray(np.uint8([[RED, GREEN], [BLUE, WHITE]]) * 255).resize((16, 16), Image.Resampling.NEAREST)
    box = trimesh.creation.box((1, 1, 1))
    front = box.vertices[:, :2] + 0.5
    simple, pbr = trimesh.visual.material.SimpleMaterial, trimesh.visual.material.PBRMaterial
    material = simple(image=picture) if suffix == ".obj" else pbr(baseColorTexture=picture)
    box.visual = trimesh.visual.TextureVisuals(uv=front, material=material)
    path = tmp_path / f"box{suffix}"
    box.export(path)
    frame = look(load_scene(path))
    seen = frame[[12, 12, 20, 20], [12, 20, 12, 20], :3]
    np.testing.assert_allclose(seen, (RED, GREEN, BLUE, WHITE), atol=1e-5)


def test_textures_wrap_around() -> None:
    gradient = np.uint8(np.random.default_rng(0).integers(0, 256, (16, 16, 4)) | (0, 0, 0, 255))
    scene = make_quads((0, (1, 1, 1, 1)), pictures=(gradient,))
    shifted = replace(scene, uv=scene.uv + np.float32([3, -2]))
    np.testing.assert_allclose(look(shifted), look(scene), atol=2e-3)


def test_patterns_finer_than_a_sample_are_averaged() -> None:
    checker = np.uint8((np.indices((512, 512)).sum(axis=0) % 2 * 255)[..., None].repeat(4, axis=-1) | (0, 0, 0, 255))
    frame = look(make_quads((0, (1, 1, 1, 1)), pictures=(checker,)), size_px=16)
    np.testing.assert_allclose(frame[6:10, 6:10, :3], linear_to_srgb(np.array(0.5)), atol=0.01)


def test_cut_outs_show_what_is_behind() -> None:
    picture = np.full((16, 16, 4), 255, np.uint8)
    picture[:, :8, 3] = 0
    frame = look(make_quads((-0.1, (1, 0, 0, 1)), (0.1, (0, 0, 1, 1)), pictures=(picture,)))
    np.testing.assert_allclose(frame[16, [12, 20]], [(*BLUE, 1), (*RED, 1)], atol=1e-5)
    single = look(make_quads((0, (1, 0, 0, 1)), pictures=(picture,)))
    np.testing.assert_allclose(single[16, [12, 20]], [(0, 0, 0, 0), (*RED, 1)], atol=1e-5)


def test_many_see_through_surfaces_one_behind_the_other_all_count() -> None:
    veils = make_quads(*((k / 50, (*GREEN, 0.1)) for k in range(50)))
    np.testing.assert_allclose(look(veils)[16, 16], (*GREEN, 1 - 0.9**50), atol=1e-4)


def test_glass_mixes_in_linear_light_and_keeps_straight_alpha() -> None:
    half = linear_to_srgb(np.array(0.5))
    over_blue = look(make_quads((-0.1, (1, 0, 0, 0.5)), (0.1, (0, 0, 1, 1))))
    np.testing.assert_allclose(over_blue[16, 16], (half, 0, half, 1), atol=1e-5)
    single = look(make_quads((-0.1, (1, 0, 0, 0.5)), (0.1, (1, 0, 0, 0.5))))
    np.testing.assert_allclose(single[16, 16], (1, 0, 0, 0.75), atol=1e-5)


def test_surfaces_back_to_back_are_each_seen_from_their_own_side() -> None:
    scene = make_quads((0, (1, 0, 0, 1)), (0, (0, 0, 1, 1)))
    turned = scene.corners.copy()
    turned[2:] = turned[2:, ::-1]
    scene = replace(scene, corners=turned)
    for azimuth_deg, colour in ((20, RED), (160, BLUE)):
        frame = look(scene, azimuth_deg)
        assert (frame[..., 3] == 1).sum() > 100
        assert np.abs(frame[frame[..., 3] == 1][:, :3] - colour).max() < 1e-5


def test_light_does_not_depend_on_the_winding(meshes: Path) -> None:
    scene = load_scene(meshes)
    inside_out = replace(scene, corners=scene.corners[:, ::-1], normals=-scene.normals, colours=scene.colours[:, ::-1])
    cameras, lights = static_orbit(3, 20, 3, size_px=32), make_lights(5)
    np.testing.assert_allclose(
        render_orbit(inside_out, cameras, lights), render_orbit(scene, cameras, lights), atol=1e-4
    )


def test_lights_are_seeded_well_exposed_and_stand_still(meshes: Path) -> None:
    normals = np.random.default_rng(0).normal(size=(2000, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    for seed in range(20):
        irradiance = make_lights(seed).irradiance(normals)
        assert 0.15 < irradiance.min() < 0.7 < irradiance.max() <= 1.01
        np.testing.assert_array_equal(irradiance, make_lights(seed).irradiance(normals))
    assert not np.allclose(make_lights(0).directions, make_lights(1).directions)
    # The same face of the object has the same brightness from wherever it is seen.
    scene = load_scene(meshes)
    frames = render_orbit(scene, [Camera.looking_at_origin(a, 0, 3, size_px=32) for a in (-10, 10)], make_lights(0))
    np.testing.assert_allclose(frames[0, 16, 16], frames[1, 16, 16], atol=1e-5)


def test_srgb_round_trip() -> None:
    values = np.linspace(0, 1, 101)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-12)
    assert srgb_to_linear(np.array(0.5)) == pytest.approx(0.2140, abs=1e-4)


def test_srgb_is_that_of_kornia() -> None:
    color, torch = pytest.importorskip("kornia.color"), pytest.importorskip("torch")
    values = torch.linspace(0, 1, 300, dtype=torch.float64).reshape(3, 10, 10)
    linear = color.rgb_to_linear_rgb(values)
    np.testing.assert_allclose(srgb_to_linear(values.numpy()), linear.numpy(), atol=1e-12)
    np.testing.assert_allclose(linear_to_srgb(linear.numpy()), color.linear_rgb_to_rgb(linear).numpy(), atol=1e-12)

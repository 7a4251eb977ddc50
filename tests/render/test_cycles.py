"""Blender behind the ray caster's interface, where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from mv3d.cameras import static_orbit
from mv3d.orbit import load_orbit
from render.__main__ import main
from render.scene import cycles, raycast
from render.scene.scene import make_scene
from render.sources import SourceObject, find_objects
from tests.render.conftest import make_cube_mtl, make_cube_obj
from tests.render.game_files import g3d, grid, picture

pytestmark = [
    pytest.mark.blender,
    pytest.mark.slow,
    pytest.mark.usefixtures("blender"),
]


def _lying_furniture(folder: Path, library: Path) -> SourceObject:
    return find_objects(library)[1]


def _painted_ply(folder: Path, library: Path) -> SourceObject:
    box = trimesh.creation.box((1, 2, 3))
    box.visual.vertex_colors = np.random.default_rng(0).integers(0, 256, (8, 4)) | [0, 0, 0, 255]
    box.export(folder / "box.ply")
    return find_objects(folder / "box.ply")[0]


def _grey_obj(folder: Path, library: Path) -> SourceObject:
    (folder / "cube.obj").write_text(make_cube_obj((1, 2, 1)))
    (folder / "cube.mtl").write_text(make_cube_mtl().replace("1 0 0", "0.5 0.2 0.7"))
    return find_objects(folder / "cube.obj")[0]


def _cut_out_model(folder: Path, library: Path) -> SourceObject:
    vertices, uv, faces = grid(8)
    (folder / "leaf.g3d").write_bytes(g3d((vertices[None], uv, faces, "leaf.png", 0)))
    (folder / "leaf.png").write_bytes(picture((200, 60, 0, 255), (0, 60, 200, 0), "PNG"))
    return find_objects(folder / "leaf.g3d")[0]


@pytest.mark.parametrize("make", [_lying_furniture, _painted_ply, _grey_obj, _cut_out_model])
def test_both_renderers_show_the_same(make, tmp_path: Path, library: Path) -> None:
    item = make(tmp_path, library)
    scene = make_scene(item.load(), linear_colours=item.linear_colours).turned(25)
    cameras = static_orbit(2, 20, 2.6, size_px=64)
    ours = raycast.render_orbit(scene, cameras, None, samples_per_side=5)
    theirs = cycles.render_orbit(item, scene, cameras, None, samples=25, threads=1)
    covered = ours[..., 3] > 0.5, theirs[..., 3] > 0.5
    assert (covered[0] & covered[1]).sum() / (covered[0] | covered[1]).sum() > 0.98
    inside = (ours[..., 3] > 0.99) & (theirs[..., 3] > 0.99)
    assert inside.sum() > 300
    assert np.square(ours[inside] - theirs[inside]).mean() < 1e-3  # 30 dB


def _write_hdr(path: Path, radiance: np.ndarray) -> None:
    """A picture all around in Radiance's format, (H, W, 3), without run lengths."""
    exponent = np.ceil(np.log2(np.maximum(radiance.max(axis=-1), 1e-6)) + 1e-6)
    mantissas = np.clip(radiance / 2.0 ** exponent[..., None] * 256, 0, 255)
    pixels = np.concatenate([mantissas, exponent[..., None] + 128], axis=-1).astype(np.uint8)
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % radiance.shape[:2] + pixels.tobytes())


@pytest.fixture
def bright_side(tmp_path: Path) -> Path:
    """Surroundings that are orange in the middle of the picture, which Blender puts at +X, and fade to faint blue."""
    nearness = (1 - np.abs(np.linspace(-1, 1, 32))[None, :, None].repeat(16, axis=0)) ** 3
    folder = tmp_path / "environments"
    folder.mkdir()
    _write_hdr(folder / "fade.hdr", nearness * (3.0, 1.5, 0.2) + (1 - nearness) * (0.01, 0.01, 0.1))
    return folder / "fade.hdr"


def test_surroundings_light_an_object_from_their_bright_side(bright_side: Path, tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(4)
    ball.visual.vertex_colors = (255, 255, 255, 255)
    ball.export(tmp_path / "ball.ply")
    (item,) = find_objects(tmp_path / "ball.ply")
    scene = make_scene(item.load(), linear_colours=item.linear_colours)
    cameras = static_orbit(4, 0, 2.6, size_px=48)  # from -Y, +X, +Y and -X
    lit = {}
    for turn_deg in (0, 90):
        lights = {"environment": str(bright_side), "turn_deg": turn_deg}
        frames = cycles.render_orbit(item, scene, cameras, lights, samples=32, threads=1)
        seen = frames[:, 16:32, 12:36]  # the ball's middle
        assert seen[..., 3].min() == 1
        left, right = seen[:, :, :8, :3].mean(axis=(1, 2)), seen[:, :, -8:, :3].mean(axis=(1, 2))
        lit[turn_deg] = left, right
    left, right = lit[0]
    brightness = ((left + right) / 2).mean(axis=-1)
    assert right[0].mean() > left[0].mean() + 0.15  # +X is to the right of who looks from -Y,
    assert left[2].mean() > right[2].mean() + 0.15  # and to the left of who looks from +Y
    assert brightness.argmax() == 1
    assert brightness.argmin() == 3
    assert right[0, 0] > right[0, 2] + 0.1  # orange
    assert left[3, 0] < left[3, 2]  # blue
    turned = ((lit[90][0] + lit[90][1]) / 2).mean(axis=-1)
    np.testing.assert_allclose(turned, np.roll(brightness, -1), atol=0.02)  # a quarter of a turn clockwise from above


def test_the_command_line_lights_with_surroundings(bright_side: Path, meshes: Path, tmp_path: Path) -> None:
    small = ("--num-views", "2", "--size", "24", "--workers", "1", "--renderer", "cycles", "--samples", "4")
    surrounded = ("--environments", str(bright_side.parent))
    lit = {}
    for name, more in (("once", surrounded), ("again", surrounded), ("lamps", ())):
        assert main(["orbits", str(meshes), "--out", str(tmp_path / name), *small, *more]) == 0
        lit[name] = load_orbit(tmp_path / name / "cube" / "0").frames
    np.testing.assert_array_equal(lit["once"], lit["again"])
    assert np.abs(lit["once"] - lit["lamps"])[lit["once"][..., 3] == 1].mean() > 0.02


def test_the_command_line_renders_with_cycles(meshes: Path, tmp_path: Path) -> None:
    (meshes / "broken.glb").write_bytes(b"glTF, or so it says")
    small = ("--num-views", "2", "--size", "32", "--workers", "1", "--renderer", "cycles", "--samples", "4")
    assert main(["orbits", str(meshes), "--out", str(tmp_path / "out"), *small, "--yaw", "0"]) == 0
    lines = {
        line["object_id"]: line for line in map(json.loads, (tmp_path / "out/manifest.jsonl").read_text().splitlines())
    }
    assert lines["broken"]["failed"]
    orbit = load_orbit(tmp_path / "out" / "cube" / "0")
    assert orbit.facts.made_by is not None
    assert "cycles" in orbit.facts.made_by
    red, green, blue, alpha = orbit.frames[0, 16, 16]
    assert alpha == 1
    assert red > 0.3 > 0.1 > max(green, blue)
    assert orbit.frames[0, 0, 0, 3] == 0

"""Training the coarse network: what a scene tells of space is true, and a stage learns it, stops and goes on."""

from __future__ import annotations

import json
from math import radians, sin
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.__main__ import main
from finetune.scenes import draw_scene
from mv3d.cameras import static_orbit
from mv3d.generate import generate
from mv3d.generate_settings import GenerateSettings
from mv3d.model.checkpoints import load_model
from mv3d.model.frustum import Frustum, axes
from mv3d.occupancy import OCCUPANCY_FILE, OCCUPANCY_SIZE
from mv3d.orbit import load_orbit
from mv3d.pack import Pack, pack_orbits
from tests.finetune.conftest import LOOP, NUM_VIEWS, TOY_CONFIG, ball_radius

COARSE = """
coarse:
  data: {data}
  pretrained_backbone: false
  frozen_stages: 0
  colour_points: 64
  rays_per_picture: 200
  network: {{picture_px: 64, backbone_px: 32, picture_channels: [8, 8, 16, 16], fine_channels: 8, rays_px: 32,
             num_bins: 16, image_channels: [8, 8, 8, 16], grid_size: 16, grid_channels: [8, 8, 16, 16]}}
  loop: {loop}
"""


@pytest.fixture
def config(large: Path, tmp_path: Path) -> Path:
    path = tmp_path / "coarse.yaml"
    places = {"data": large, "run": tmp_path / "run", "loop": LOOP}
    before, _, rest = TOY_CONFIG.partition("coarse:")
    path.write_text((before + rest[rest.index("diffusion:") :]).format(**places) + COARSE.format(**places))
    return path


def _radius(orbit: Path) -> float:
    """The radius of a ball, in frame radii."""
    camera = load_orbit(orbit).cameras[0]
    radius = ball_radius(int(orbit.parent.name.rpartition("-")[2]))
    return radius / (camera.radius * sin(radians(camera.fov_deg) / 2))


def _coloured_by_place(pack: Pack) -> Pack:
    """The same balls, every point of their surfaces in a colour of its own, whichever view sees it."""
    frames = np.array(pack.frames)
    for orbit in range(len(pack.entries)):
        for view, camera in enumerate(pack.cameras(orbit)):
            columns, rows = camera.sample_rays()
            depth = pack.depth[orbit, view].astype(np.float64)
            points = camera.position + (rows[:, None] + columns[None]) * depth[..., None]
            frames[orbit, view, ..., :3] = np.clip((points + 0.5) * 255, 0, 255)
    return Pack(**{**vars(pack), "frames": frames})


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_scene_tells_what_is_true_of_its_object(large: Path, tmp_path: Path, seed: int):
    pack = _coloured_by_place(pack_orbits([large], tmp_path / "pack", 64))
    radius = _radius(Path(pack.entries[1].orbit))
    scene = draw_scene(pack, 1, 2, 512, torch.Generator().manual_seed(seed))
    assert scene.poses[0, 0] == 0
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    off, cell = points.norm(dim=-1) - radius, 2 / OCCUPANCY_SIZE
    filled = scene.occupancy(points)
    assert filled[off < -0.03].min() > 0.999
    assert filled[(off > 0) & (off < cell / 2)].mean() > 0.7  # a cell thicker than it is
    assert filled[off > 0.03 + 3 * cell].max() < 1e-3
    assert (scene.surface.norm(dim=-1) - radius).abs().max() < 0.09  # a pixel is 1/16 of a frame radius wide
    # The pictures show the surface's colours where they see it.
    at = Frustum(33.8).project(scene.surface[None], scene.poses[:1])[0]
    seen = scene.surface @ axes(scene.poses[0])[2] > 0.3 * radius
    column, row = ((at[seen, :2] + 1) * 32).long().clamp(0, 63).T
    same = (scene.rgba[0, :3, row, column] - scene.colour[:, seen]).abs().amax(dim=0) < 0.1
    assert seen.sum() > 20
    assert same.float().mean() > 0.9


def test_a_mirrored_object_is_a_true_one(large: Path, tmp_path: Path):
    """Occupancy, pictures and cameras are mirrored together: an object that is not symmetric shows it."""
    pack = pack_orbits([large], tmp_path / "pack", 64)
    grid = np.zeros((OCCUPANCY_SIZE,) * 3, dtype=bool)
    grid[40:90, 40:60, 70:110] = True
    lopsided = Pack(**{**vars(pack), "occupancy": np.packbits(grid)[None].repeat(len(pack.entries), axis=0)})
    low, high = np.array([70, 40, 40]) / 64 - 1, np.array([110, 60, 90]) / 64 - 1
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3)
    for seed in range(6):
        scene = draw_scene(lopsided, 0, 1, 8, torch.Generator().manual_seed(seed))
        outlines = []
        for sign in (1, -1):
            for k in range(NUM_VIEWS):
                camera = static_orbit(NUM_VIEWS, np.degrees(scene.poses[0, 1].item()), size_px=64)[k]
                scale = camera.radius * sin(radians(camera.fov_deg) / 2)
                outlines.append(camera.project(corners * [sign, 1, 1] * scale)[0] / 32 - 1)
        axis = (torch.arange(48) + 0.5) / 24 - 1
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
        filled = points[scene.occupancy(points) > 0.5]
        uv = Frustum(33.8).project(filled[None], scene.poses)[0, :, :2].numpy()
        extent = np.stack([uv.min(axis=0), uv.max(axis=0)])
        errors = [np.abs(extent - np.stack([o.min(axis=0), o.max(axis=0)])).max() for o in outlines]
        assert min(errors) < 0.08, (seed, errors)


@pytest.mark.slow
def test_two_steps_and_a_resume_to_four_equal_four_steps(config: Path, tmp_path: Path):
    def train(run: str, *more: str) -> int:
        return main([str(config), "--stage", "coarse", "--set", f"run={tmp_path / run}", *more])

    assert train("once") == 0
    assert train("twice", "--set", "coarse.loop.steps=2") == 0
    assert train("twice") == 0
    once, twice = (_log(tmp_path / run / "coarse") for run in ("once", "twice"))
    assert [line["loss"] for line in once if "loss" in line] == [line["loss"] for line in twice if "loss" in line]
    (scores,) = (line for line in once if "val_voxel_iou" in line)
    assert 0 <= scores["val_voxel_iou"] <= 1
    assert (tmp_path / "once" / "coarse" / "sheets" / "0000004.jpg").is_file()


@pytest.mark.slow
def test_training_finds_the_balls(config: Path, tmp_path: Path):
    loop = ("steps=60", "batch_size=3", "warmup_steps=5", "learning_rate=3e-3", "validate_every=60", "log_every=10")
    assert main([str(config), "--stage", "coarse", *(f"--set=coarse.loop.{part}" for part in loop)]) == 0
    lines = _log(tmp_path / "run" / "coarse")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    assert next(line for line in lines if "val_voxel_iou" in line)["val_voxel_iou"] > 0.4


@pytest.mark.slow
def test_a_new_model_s_frames_are_made_on_the_coarse_network_s_surface(config: Path, tmp_path: Path):
    assert main([str(config)]) == 0
    model = load_model(tmp_path / "run/model")
    picture = np.zeros((32, 32, 4), dtype=np.float32)
    picture[8:24, 8:24] = (0.8, 0.2, 0.1, 1.0)
    made = generate(picture, model, GenerateSettings(num_views=4))
    drawn = generate(picture, model, GenerateSettings(num_views=4, preview=True))
    assert made.surface.is_watertight
    assert np.array_equal(made.surface.vertices, drawn.surface.vertices)
    log = _log(tmp_path / "run/diffusion")
    assert any("val_psnr" in line for line in log)


def test_what_cannot_be_learnt_from_is_one_line(config: Path, capsys: pytest.CaptureFixture[str], large: Path):
    for path in large.rglob(OCCUPANCY_FILE):
        path.write_bytes(b"PK broken")
    assert main([str(config), "--stage", "coarse"]) == 2
    shown = capsys.readouterr().err
    assert "occupancy" in shown
    assert "Traceback" not in shown
    for path in large.rglob(OCCUPANCY_FILE):
        path.unlink()
    assert main([str(config), "--stage", "coarse"]) == 2
    assert "--passes depth occupancy" in capsys.readouterr().err


def _log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]

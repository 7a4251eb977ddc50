"""A folder of tiny orbits in the format the renderer writes, and a run config at toy width."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator
from math import radians, sin
from pathlib import Path

import numpy as np
import pytest

from mv3d.cameras import Camera, static_orbit
from mv3d.depth import Depth, load_depth, save_depth
from mv3d.occupancy import OCCUPANCY_FILE, OCCUPANCY_SIZE, occupancy_file
from mv3d.orbit import Facts, Orbit, load_orbit, save_orbit

SIZE_PX = 32
NUM_VIEWS = 4

TOY_CONFIG = """
data: {data}
run: {run}
resolution_px: 32
validation_objects: 1
autoencoder:
  channels: [8, 8, 8, 8]
  latent_channels: 4
  loop: {loop}
coarse:
  pretrained_backbone: false
  frozen_stages: 7
  rays_per_picture: 100
  colour_points: 64
  network: {{picture_px: 32, backbone_px: 32, picture_channels: [8, 8, 8, 16], fine_channels: 8, rays_px: 16,
             num_bins: 16, image_channels: [8, 8, 8, 16], grid_size: 8, grid_channels: [8, 8, 8, 16]}}
  loop: {loop}
diffusion:
  channels: [32, 32]
  heads: [1, 1]
  cross_attention_dim: 32
  id_embed_dim: 16
  pose_embed_dim: 16
  sampling_steps: 2
  lpips_weight: 0.1
  loop: {loop}
"""
LOOP = "{steps: 4, batch_size: 2, learning_rate: 1.0e-3, log_every: 1, save_every: 2, validate_every: 4}"


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rendered(tmp_path_factory.mktemp("rendered"))


def make_rendered(folder: Path, num_views: int = NUM_VIEWS) -> Path:
    """Four coloured balls: three to train on and one to validate with, and one object that could not be rendered."""
    lines = []
    for k, split in enumerate(["train", "train", "train", "val"]):
        orbit, depth = make_ball(k, static_orbit(num_views, 10 + 5 * k, size_px=SIZE_PX))
        save_orbit(orbit, folder / f"toy/ball-{k}" / "0", for_people=False)
        save_depth(depth, folder / f"toy/ball-{k}" / "0")
        (folder / f"toy/ball-{k}" / "0" / OCCUPANCY_FILE).write_bytes(occupancy_file(_ball_cells(k)))
        lines.append({"object_id": f"toy/ball-{k}", "split": split, "orbits": 1})
    lines.append({"object_id": "toy/flat", "orbits": 0, "failed": "flat"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="session")
def random_lpips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with LPIPS of random weights: training goes by it as by the genuine one, which not every machine has."""
    import torch
    from safetensors.torch import save_file

    from eval.metrics.lpips import Lpips
    from eval.metrics.weights import lpips_file

    torch.manual_seed(0)
    network = Lpips("alex")
    for linear in network.lins.parameters():
        linear.abs_()  # as the genuine ones are: a distance is not negative
    cache = tmp_path_factory.mktemp("cache")
    save_file(network.state_dict(), lpips_file("alex", cache))
    return cache


@pytest.fixture(scope="module", autouse=True)  # not for the modules of others that one process tests in between
def lpips_of_its_own(random_lpips: Path) -> Iterator[None]:
    """LPIPS is taken from that cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MV3D_CACHE", str(random_lpips))
        yield


@pytest.fixture
def config_file(rendered: Path, tmp_path: Path) -> Path:
    """A run at toy width in a folder of its own."""
    path = tmp_path / "toy.yaml"
    path.write_text(TOY_CONFIG.format(data=rendered, run=tmp_path / "run", loop=LOOP))
    return path


ADAPT_CONFIG = """
base: {base}
model_name: toy
data: {data}
run: {run}
num_views: 4
resolution_px: 32
validation_objects: {validation_objects}
diffusion:
  conditions: {conditions}
  p_mean: 0.7
  p_std: 1.6
  condition_dropout: 0.2
  cond_noise_mean: -3.0
  cond_noise_std: 0.5
  cache: {{variants: 3, backgrounds: true, flip: true, recolour: true, samples_per_shard: 2, buffer_shards: 2}}
  loop: {{steps: 4, batch_size: 2, learning_rate: 1.0e-3, warmup_steps: 1, log_every: 1, save_every: 2,
         validate_every: 4}}
"""


@pytest.fixture
def write_recipe(rendered: Path, svd_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the YAML of an adaptation of the tiny SVD; without validation, which takes time.

    ``more`` stands in the diffusion stage's section, ``top`` beside it.
    """

    def write(
        run: str = "run", more: str = "", conditions: str = "{}", validation_objects: int = 0, top: str = ""
    ) -> Path:
        path = tmp_path / f"{run}.yaml"
        given = {"base": svd_folder, "data": rendered, "run": tmp_path / run}
        text = ADAPT_CONFIG.format(**given, conditions=conditions, validation_objects=validation_objects)
        path.write_text(text + textwrap.indent(more, "  ") + top)
        return path

    return write


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in the order that forked children, which have one thread, make them in: bits depend on it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fork() -> Callable[..., int]:
    """Starts work in a child process that has everything imported already; returns its number."""

    def start(work: Callable[[], int], **environment: str) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that forking with threads is delicate
            child = os.fork()
        if child:
            return child
        code = 1
        try:
            import torch

            torch.set_num_threads(1)  # the parent's threads are not here
            os.environ.update(environment)
            code = work()
        except BaseException:
            traceback.print_exc()
        os._exit(code)

    return start


def make_ball(seed: int, cameras: tuple[Camera, ...] = ()) -> tuple[Orbit, Depth]:
    """A ball of two colours seen by cameras, or by those of a static orbit, and its depth maps."""
    cameras = cameras or static_orbit(NUM_VIEWS, 10 + 5 * seed, size_px=SIZE_PX)
    rng = np.random.default_rng(seed)
    colours, radius = rng.random((2, 3)), ball_radius(seed)
    frames = np.zeros((len(cameras), SIZE_PX, SIZE_PX, 4), dtype=np.float32)
    depth = np.zeros(frames.shape[:3], dtype=np.float32)
    for frame, near, camera in zip(frames, depth, cameras, strict=True):
        directions = camera.directions(camera.pixel_grid())
        nearest = camera.position - directions * (directions @ camera.position)[..., None]
        inside = np.linalg.norm(nearest, axis=-1) < radius
        frame[inside, :3] = colours[(nearest[inside, 0] > 0).astype(int)]  # two halves, so that views differ
        frame[inside, 3] = 1
        hits = nearest[inside] - directions[inside] * np.sqrt(radius**2 - np.square(nearest[inside]).sum(-1))[:, None]
        _, near[inside] = camera.project(hits)
    return Orbit(frames, cameras, Facts(input_index=0, source=f"toy/ball-{seed}")), depth


def ball_radius(seed: int) -> float:
    """The radius of a ball, in world units."""
    return 0.25 + 0.2 * np.random.default_rng(seed).random(7)[-1]


def _ball_cells(seed: int) -> np.ndarray:
    """Which cells of the cube around the origin a ball fills."""
    camera = static_orbit(1, 0, size_px=SIZE_PX)[0]
    half_side = camera.radius * sin(radians(camera.fov_deg) / 2)
    axis = ((np.arange(OCCUPANCY_SIZE) + 0.5) / OCCUPANCY_SIZE * 2 - 1) * half_side
    return axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < ball_radius(seed) ** 2


@pytest.fixture
def large(rendered: Path, tmp_path: Path) -> Path:
    """The toy orbits at twice their size."""
    folder = tmp_path / "large"
    for path in rendered.glob("toy/*/0"):
        to = folder / path.relative_to(rendered)
        save_orbit(load_orbit(path).resized(64), to, for_people=False)
        save_depth(load_depth(path).repeat(2, axis=1).repeat(2, axis=2), to)
        shutil.copy(path / OCCUPANCY_FILE, to)
    (folder / "manifest.jsonl").write_text((rendered / "manifest.jsonl").read_text())
    return folder

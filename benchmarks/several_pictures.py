"""What more pictures of an object are worth to the surface: drawn views and geometry from 1, 2 and 4 of them.

    python -m benchmarks.several_pictures data/orbits-val OBJECTS --every 2

Pictures are true views of held-out objects, with their true cameras: the front; the back; both sides. Scored are views
halfway between them, which nobody was given, and the surface beside the true mesh (Chamfer, largest extent 1).
``--own-framing`` scales and moves the pictures at random first, as if nobody knew how they belong together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from eval.metrics.geometry import chamfer, sample_visible
from eval.metrics.images import psnr
from eval.truth.objects import load_true_mesh
from mv3d.dataset import orbit_folders, read_manifest
from mv3d.mesh import Mesh
from mv3d.model.alpha import from_autoencoder
from mv3d.model.checkpoints import load_model
from mv3d.model.coarse_stage import find_object
from mv3d.model.drawing import frame_radius
from mv3d.model.posed_picture import PosedPicture
from mv3d.more_pictures import frame_together
from mv3d.orbit import Orbit, load_orbit
from mv3d.pixels import Frames, composite, resize
from render.sources import find_objects

_GIVEN = (0, 10, 5, 16)  # of 21 views: 0, 171, 86 and 274 degrees
_COUNTS = (1, 2, 4)
_SCORED = (2, 3, 7, 8, 12, 13, 14, 18, 19)
_SCALES = (0.6, 1.0)


@dataclass(frozen=True)
class MoreViews:
    """What is measured."""

    orbits: Annotated[Path, tyro.conf.Positional]
    """A collection of level orbits of 21 views."""
    objects: Annotated[Path, tyro.conf.Positional]
    """Where its objects come from."""
    split: str = "val"
    every: int = 1
    own_framing: bool = False
    model: str = "mini"


def main(options: MoreViews) -> None:
    """Print a line an object and number of pictures, and their means."""
    items = {item.object_id: item for item in find_objects(options.objects)}
    network = load_model(options.model).coarse
    assert network is not None, "the model has a coarse stage"
    listed = sorted(
        name for name, entry in read_manifest(options.orbits).items() if entry.split == options.split and entry.orbits
    )
    rows: dict[int, list[tuple[float, float, float]]] = {count: [] for count in _COUNTS}
    for name in listed[:: options.every]:
        truth = load_orbit(orbit_folders(options.orbits / name)[0])
        mesh = load_true_mesh(items[name], float(truth.facts.extra["object_yaw_deg"]))
        for count in _COUNTS:
            pictures = _pictures(truth, _GIVEN[:count], np.random.default_rng(0) if options.own_framing else None)
            thing = find_object(network, pictures)
            cameras = [truth.cameras[k] for k in _SCORED]
            drawn = from_autoencoder(thing.draw(cameras, len(truth.frames[0])).views[:, :4])
            surface = thing.mesh(frame_radius(cameras[0]))
            rows[count].append(_scores(drawn.permute(0, 2, 3, 1).numpy(), truth.frames[list(_SCORED)], surface, mesh))
            print(name, count, *np.round(rows[count][-1], 4), flush=True)
    for count, found in rows.items():
        print(f"mean of {len(found)}, {count} pictures: PSNR, IoU, Chamfer", *np.round(np.mean(found, axis=0), 4))


def _pictures(truth: Orbit, given: tuple[int, ...], rng: np.random.Generator | None) -> list[PosedPicture]:
    frames = [truth.frames[k] for k in given]
    poses = [(truth.cameras[k].azimuth_deg, truth.cameras[k].elevation_deg) for k in given]
    if rng is not None:
        frames = frame_together([_moved(frame, rng) for frame in frames], poses).at(len(frames[0]))
    return [
        PosedPicture(torch.from_numpy(frame).permute(2, 0, 1), *pose) for frame, pose in zip(frames, poses, strict=True)
    ]


def _moved(frame: Frames, rng: np.random.Generator) -> Frames:
    """The frame at a scale and place of its own, as a cut-out photograph has them."""
    size_px = round(len(frame) * rng.uniform(*_SCALES))
    (above, below), (left, right) = rng.integers(0, 60, (2, 2))
    return np.pad(resize(frame, size_px, size_px), ((above, below), (left, right), (0, 0)))


def _scores(drawn: Frames, truth: Frames, surface: Mesh, mesh: Mesh) -> tuple[float, float, float]:
    ours, theirs = drawn[..., 3] >= 0.5, truth[..., 3] >= 0.5
    overlap = (ours & theirs).sum(axis=(1, 2)) / np.maximum((ours | theirs).sum(axis=(1, 2)), 1)
    points = [sample_visible(one).points for one in (surface, mesh)]
    return float(np.mean(psnr(composite(drawn), composite(truth)))), float(overlap.mean()), chamfer(*points)


if __name__ == "__main__":
    main(tyro.cli(MoreViews, description=__doc__))

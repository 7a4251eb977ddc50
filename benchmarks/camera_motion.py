r"""Camera motion of generated clips, measured: a base without and with its camera LoRAs, from held-out pictures.

    for path in orbit-left orbit-right; do
        python -m render orbits OBJECTS --out data/clips/$path --path $path --num-views 8 --size 64
    done
    python -m benchmarks.camera_motion runs/motion_base/model data/clips --out runs/motion \
        --row orbit-left=runs/orbit-left/lora --row orbit-left+zoom-in=runs/orbit-left/lora,runs/zoom-in/lora

A clip is compared with what it would show for each of many motions, frame by frame: views of the two orbiting clips,
which begin at the same picture, panned and zoomed, which of a view of a still camera is exact. The motion of the least
mean squared error over all frames is the clip's. Objects that look alike from all around say nothing
of it and are left out. Writes ``motion.md`` and ``motion.jpg``, a row of frames for each of the first pictures.
"""

from __future__ import annotations

import argparse
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from finetune.data import OrbitFrames, load_frames
from finetune.pictures import save_rows, shrunk
from mv3d.cameras import Camera
from mv3d.dataset import list_orbits
from mv3d.errors import Mv3dError
from mv3d.files import whole_file
from mv3d.model.alpha import on_white, to_autoencoder
from mv3d.model.checkpoints import OrbitModel, load_model
from mv3d.model.facts import SampleSettings
from mv3d.model.lora import parse_lora, with_loras
from mv3d.model.pipeline import make_conditions, sample_views
from render.camera_paths import FARTHEST, MOTIONS, Motion

_LEAST_CHANGE = 0.01  # mean squared error between the picture and a view from the side, under which it tells nothing
_STEPS = np.linspace(-1.5, 1.5, 13)  # pans and zooms that are tried, in units of the farthest
_SHOWN = 4
_TRUE = "orbit-left, rendered"
_NAMES = ("azimuth_deg", "pan_deg", "zoom")


def estimate_motions(clips: Tensor, views: OrbitFrames, first: Camera) -> np.ndarray:
    """How the camera moved in clips that begin at one picture: shares of the farthest azimuth, pan and log of zoom.

    Args:
        clips: (R, F, 3, S, S) on white in [0, 1]; the motion is even.
        views: the object from evenly spaced azimuths as far as the farthest, to both sides.
        first: the camera of the first frames.

    Returns:
        (R, 3), to a step of the azimuths and a quarter of the farthest pan and zoom.
    """
    rgb = on_white(views.rgba)
    turns = [(camera.azimuth_deg - first.azimuth_deg + 180) % 360 - 180 for camera in views.cameras]
    azimuths = np.array(turns) / FARTHEST.azimuth_deg
    errors = np.zeros((len(clips), len(_STEPS), len(_STEPS), len(azimuths)))
    for frame, share in enumerate(np.linspace(0, 1, clips.shape[1]).tolist()):
        nearest = np.abs(azimuths[:, None] * share - azimuths).argmin(axis=1)  # the view where each should be by now
        for i, pan in enumerate(_STEPS.tolist()):
            for k, zoom in enumerate(_STEPS.tolist()):
                moved = Motion(0.0, pan * FARTHEST.pan_deg, FARTHEST.zoom**zoom).moved(first, share)
                seen = _seen_by(moved, rgb, first).flatten(1)
                apart = torch.cdist(clips[:, frame].flatten(1), seen).square()
                errors[:, i, k] += apart.numpy()[:, nearest]
    pan, zoom, azimuth = np.unravel_index(errors.reshape(len(clips), -1).argmin(axis=1), errors.shape[1:])
    return np.stack([azimuths[azimuth], _STEPS[pan], _STEPS[zoom]], axis=1)


def _seen_by(moved: Camera, views: Tensor, camera: Camera) -> Tensor:
    """What cameras see that turned or zoomed where they stand, as ``camera`` did; white where no view reaches.

    The same pixels of every view (N, 3, S, S): how all cameras turn is seen from each alike.
    """
    pixels, _ = camera.project(camera.position + moved.directions(moved.pixel_grid()))
    grid = torch.from_numpy(pixels / (camera.width_px / 2) - 1).float()
    return F.grid_sample(views - 1, grid[None].expand(len(views), -1, -1, -1), align_corners=False) + 1


def wanted_motion(name: str) -> np.ndarray:
    """The shares of a motion's name, or of several joined by +, (3,)."""
    total = np.zeros(3)
    for part in name.split("+"):
        if part not in MOTIONS:
            raise Mv3dError(f"--row {name}: there is no motion {part}; choose from {', '.join(MOTIONS)}")
        motion = MOTIONS[part]
        zoom = np.log(motion.zoom) / np.log(FARTHEST.zoom)
        total += (motion.azimuth_deg / FARTHEST.azimuth_deg, motion.pan_deg / FARTHEST.pan_deg, zoom)
    return total


def held_out(data: Path, count: int, size_px: int) -> list[tuple[OrbitFrames, OrbitFrames]]:
    """The clip to the left of the first held-out objects that look different from the side, and the views around."""
    sides = [{e.object_id: e for e in list_orbits([data / path]).orbits} for path in ("orbit-left", "orbit-right")]
    found = []
    for object_id, entry in sorted(sides[0].items()):
        if entry.split == "train" or object_id not in sides[1] or len(found) == count:
            continue
        left, right = (load_frames(side[object_id], size_px) for side in sides)
        shown = to_autoencoder(torch.stack([left.rgba[0], left.rgba[-1], right.rgba[-1]]), 3) / 2
        if (shown[1:] - shown[0]).square().mean(dim=(1, 2, 3)).min() > _LEAST_CHANGE:
            found.append((left, OrbitFrames(torch.cat([left.rgba, right.rgba[1:]]), left.cameras + right.cameras[1:])))
    return found


@torch.no_grad()
def make_clip(model: OrbitModel, picture: Tensor, seed: int) -> Tensor:
    """Frames (F, 4, S, S) of a clip that begins with a picture (4, S, S)."""
    conditions = make_conditions(model, picture, (), seed)
    frames = sample_views(model, conditions, SampleSettings(num_views=model.facts.num_views, seed=seed))
    return shrunk(frames, picture.shape[-1])


def main() -> None:
    """Make clips, measure them, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a model of clips")
    parser.add_argument("data", type=Path, help="folder of orbit-left/ and orbit-right/")
    parser.add_argument("--row", action="append", default=[], metavar="MOTION=LORA,...", help="motions, joined by +")
    parser.add_argument("--count", type=int, default=30, help="held-out pictures")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    size_px = load_model(options.base).facts.resolution_px
    objects = held_out(options.data, options.count, size_px)
    heading = ("clips", "wanted", "direction right", "amount, median", "azimuth, pan, zoom, median")
    names, models = [_TRUE, "base alone"], [load_model(options.base)]
    wanted = [wanted_motion("orbit-left"), wanted_motion("still")]
    for row in options.row:
        name, _, files = row.partition("=")
        names.append(name)
        wanted.append(wanted_motion(name))
        models.append(with_loras(load_model(options.base), [parse_lora(text) for text in files.split(",")]))
    found, shown = [], []
    for seed, (clip, views) in enumerate(tqdm(objects, unit="picture")):
        clips = [clip.rgba] + [make_clip(model, clip.rgba[0], seed) for model in models]
        rgb = torch.stack([on_white(frames) for frames in clips])
        found.append(estimate_motions(rgb, views, clip.cameras[0]))
        shown += clips if seed < _SHOWN else []
    lines = [f"| {' | '.join(heading)} |", "|" + " --- |" * len(heading)]
    lines += [_line(*row) for row in zip(names, wanted, np.stack(found, axis=1), strict=True)]
    table = "\n".join([f"{len(objects)} held-out pictures; amounts are shares of {_farthest()}", "", *lines]) + "\n"
    with whole_file(options.out / "motion.md") as partial:
        partial.write_text(table)
    save_rows(shown, options.out / "motion.jpg")
    print(table, end="")


def _line(name: str, wanted: np.ndarray, found: np.ndarray) -> str:
    moving = wanted != 0
    medians = ", ".join(f"{value:+.2f}" for value in np.median(found, axis=0))
    if not moving.any():
        return f"| {name} | - | - | - | {medians} |"
    right = (np.sign(found[:, moving]) == np.sign(wanted[moving])).all(axis=1).mean()
    amount = np.median(found[:, moving] / wanted[moving], axis=0)
    shares = ", ".join(f"{value:.2f}" for value in amount)
    aims = ", ".join(f"{value:+.0f}" for value in wanted)
    return f"| {name} | {aims} | {right:.0%} | {shares} | {medians} |"


def _farthest() -> str:
    return ", ".join(f"{name} {value:g}" for name, value in zip(_NAMES, astuple(FARTHEST), strict=True))


if __name__ == "__main__":
    main()

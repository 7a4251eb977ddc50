"""Gaussian splats of an orbit, rasterised by gsplat on a CUDA device, and their file.

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023. An orbit's silhouettes say where the
object is, so Gaussians begin inside all of them and their number stays: nothing is split, cloned or pruned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mv3d.conventions import to_opencv
from mv3d.errors import Mv3dError
from mv3d.export.points import encode_ply
from mv3d.files import whole_file
from mv3d.lift.silhouettes import cut_out_views
from mv3d.orbit import Orbit

_DEGREE_ZERO = 0.28209479177387814  # the spherical harmonic of degree 0, 1 / (2 sqrt(pi)): colour = 0.5 + that * f_dc
_FAINTEST = 1 / 255  # an opacity below it changes no pixel
_MOST_TRIES = 200
# Step sizes of the reference implementation, for a scene about 1 long.
_RATES = {"means": 1.6e-4, "log_scales": 5e-3, "quaternions": 1e-3, "opacity_logits": 5e-2, "harmonics": 2.5e-3}


@dataclass(frozen=True, eq=False)
class Splats:
    """N Gaussians in the world, as the files of splats store them."""

    means: NDArray[np.float32]
    log_scales: NDArray[np.float32]
    """Natural logarithm of the standard deviations along the Gaussian's own axes, (N, 3)."""
    quaternions: NDArray[np.float32]
    """Unit, (w, x, y, z): own axes to the world's, (N, 4)."""
    opacity_logits: NDArray[np.float32]
    """(N,)."""
    harmonics: NDArray[np.float32]
    """Colour as spherical harmonics of degree 0: seen alike from all sides, (N, 3)."""


def fit_splats(orbit: Orbit, path: Path, *, steps: int = 3000, count: int = 50_000, seed: int = 0) -> int:
    """Fit Gaussians to the orbit and write them as a .ply; returns how many there are.

    Raises:
        Mv3dError: if gsplat or a CUDA device is missing, or the views show no object in common.
    """
    rasterization = _find_gsplat()
    splats = optimise_splats(orbit, rasterization, "cuda", steps=steps, count=count, seed=seed)
    save_splats(splats, path)
    return len(splats.means)


def optimise_splats(
    orbit: Orbit, rasterization: Callable[..., Any], device: str, *, steps: int, count: int, seed: int = 0
) -> Splats:
    """Fit Gaussians by gradients of the pixels' absolute difference, one view a step, on backgrounds drawn at random.

    ``rasterization`` is gsplat's, or what takes its arguments.
    """
    generator = torch.Generator().manual_seed(seed)
    orbit = cut_out_views(orbit)
    frames = torch.tensor(orbit.frames, device=device)
    poses = [to_opencv(camera) for camera in orbit.cameras]
    cam_from_world = torch.tensor(np.stack([pose for pose, _ in poses]), dtype=torch.float32, device=device)
    intrinsics = torch.tensor(np.stack([lens for _, lens in poses]), dtype=torch.float32, device=device)
    values = {
        name: torch.tensor(value, device=device, requires_grad=True)
        for name, value in vars(_begin(orbit, count, seed)).items()
    }
    groups = [{"params": [value], "lr": _RATES[name]} for name, value in values.items()]
    optimiser = torch.optim.Adam(groups, eps=1e-15)
    height_px, width_px = orbit.frames.shape[1:3]
    for _ in range(steps):
        view = int(torch.randint(len(orbit), (1,), generator=generator))
        background = torch.rand(3, generator=generator).to(device)
        pictures, *_ = rasterization(
            means=values["means"],
            quats=values["quaternions"],
            scales=values["log_scales"].exp(),
            opacities=values["opacity_logits"].sigmoid(),
            colors=0.5 + _DEGREE_ZERO * values["harmonics"],
            viewmats=cam_from_world[view : view + 1],
            Ks=intrinsics[view : view + 1],
            width=width_px,
            height=height_px,
            backgrounds=background[None],
        )
        rgb, cover = frames[view, ..., :3], frames[view, ..., 3:]
        loss = (pictures[0] - (rgb * cover + background * (1 - cover))).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    fitted = {name: value.detach().cpu().numpy() for name, value in values.items()}
    fitted["quaternions"] /= np.linalg.norm(fitted["quaternions"], axis=1, keepdims=True)
    is_kept = np.isfinite(np.concatenate([fitted[name].reshape(count, -1) for name in fitted], axis=1)).all(axis=1)
    is_kept &= 1 / (1 + np.exp(-fitted["opacity_logits"])) > _FAINTEST
    return Splats(**{name: value[is_kept] for name, value in fitted.items()})


def save_splats(splats: Splats, path: Path) -> None:
    """Write the .ply of the reference implementation, which viewers of splats read. Replaces ``path``."""
    columns = dict(zip(("x", "y", "z"), splats.means.T, strict=True))
    columns |= dict.fromkeys(("nx", "ny", "nz"), np.zeros(len(splats.means), dtype=np.float32))
    columns |= {f"f_dc_{k}": column for k, column in enumerate(splats.harmonics.T)}
    columns |= {"opacity": splats.opacity_logits}
    columns |= {f"scale_{k}": column for k, column in enumerate(splats.log_scales.T)}
    columns |= {f"rot_{k}": column for k, column in enumerate(splats.quaternions.T)}
    with whole_file(path) as partial:
        partial.write_bytes(encode_ply(columns))


def _begin(orbit: Orbit, count: int, seed: int) -> Splats:
    """Balls at random places inside the silhouettes of all views, as large as the room between them.

    Each has the mean of the colours that the views show where it is.
    """
    random = np.random.default_rng(seed)
    reach = min(camera.radius for camera in orbit.cameras) / 2
    kept, colours, num_kept, num_drawn = [], [], 0, 0
    for _ in range(_MOST_TRIES):
        points = random.uniform(-reach, reach, (4 * count, 3))
        inside, colour = np.ones(len(points), dtype=bool), np.zeros((len(points), 3), dtype=np.float32)
        for camera, frame in zip(orbit.cameras, orbit.frames, strict=True):
            pixels, depth = camera.project(points)
            column, row = np.floor(pixels).astype(int).T
            seen = (depth > 0) & (column >= 0) & (row >= 0) & (column < camera.width_px) & (row < camera.height_px)
            inside &= seen
            inside[seen] &= frame[row[seen], column[seen], 3] >= 0.5
            colour[seen] += frame[row[seen], column[seen], :3] / len(orbit)
        kept.append(points[inside])
        colours.append(colour[inside])
        num_kept, num_drawn = num_kept + int(inside.sum()), num_drawn + len(points)
        if num_kept >= count:
            break
    if num_kept < count:
        raise Mv3dError(
            f"the silhouettes have too little in common to start splats in ({num_kept} of {num_drawn} places): the "
            "cameras do not fit the views, or do not look at the origin"
        )
    spacing = (num_kept / num_drawn * (2 * reach) ** 3 / count) ** (1 / 3)
    return Splats(
        np.concatenate(kept)[:count].astype(np.float32),
        np.full((count, 3), np.log(spacing), dtype=np.float32),
        np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (count, 1)),
        np.full(count, np.log(0.1 / 0.9), dtype=np.float32),
        ((np.concatenate(colours)[:count] - 0.5) / _DEGREE_ZERO).astype(np.float32),
    )


def _find_gsplat() -> Callable[..., Any]:
    if not torch.cuda.is_available():
        raise Mv3dError("splats are rasterised on a CUDA device, and torch finds none here; lift to a mesh instead")
    try:
        from gsplat import rasterization  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise Mv3dError(f"splats need gsplat ({error}); install it: pip install gsplat") from error
    return rasterization

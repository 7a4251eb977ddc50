"""Training the coarse volume: one view of an orbit in, other views of it out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.config import RunConfig
from finetune.data import Pack, draw, validation_orbits
from finetune.pictures import recoloured, save_rows, to_tensor
from finetune.processes import WHOLE, Part
from mv3d.cameras import Camera
from mv3d.model.volume import CoarseVolume, Rays, make_rays


class VolumeTraining:
    """Each sample: an orbit, one of its views as the picture, a few others as the truth."""

    divisible = False
    images_per_sample = 1

    def __init__(self, run: RunConfig, pack: Pack) -> None:
        config = run.volume
        torch.manual_seed(run.seed)  # initial weights only
        self._volume = CoarseVolume(config.network)
        self.network: nn.Module = self._volume
        self._config = config
        self._pack = pack
        self._seed = run.seed
        self._orbits = pack.indices("train")
        self._validation = validation_orbits(pack, run.validation_objects)

    def loss(self, step: int, generator: torch.Generator, part: Part = WHOLE) -> tuple[Tensor, dict[str, float]]:
        """Squared error on white, squared error of the silhouette, and cross-entropy with the visual hull."""
        config = self._config
        chosen = draw(config.loop.batch_size, len(self._orbits), self._seed, step)
        pictures, truths, elevations, origins, directions, points, hulls = [], [], [], [], [], [], []
        for orbit in (self._orbits[k] for k in chosen):
            views = self._pack.frames.shape[1]
            start = int(torch.randint(views, (), generator=generator))
            targets = torch.randperm(views, generator=generator)[: config.views_per_object].numpy()
            cameras = self._pack.cameras_from(orbit, start)
            frames = self._pack.frames[orbit, (np.concatenate([[0], targets]) + start) % views]
            rgba = recoloured(to_tensor(frames), generator)
            rays = make_rays([cameras[k] for k in targets], config.render_px)
            at = torch.rand(config.hull_points, 3, generator=generator) * 2 - 1
            alphas = to_tensor(np.roll(self._pack.frames[orbit], -start, axis=0))[:, 3]
            hulls.append(hull_occupancy(alphas, cameras, at))
            if torch.rand((), generator=generator) < 0.5:
                rgba, rays, at = mirrored(rgba, rays, at)
            points.append(at)
            pictures.append(rgba[0])
            truths.append(downsampled(rgba[1:], config.render_px))
            elevations.append(np.radians(cameras[0].elevation_deg))
            origins.append(rays.origins)
            directions.append(rays.directions)
        field = self._volume(torch.stack(pictures), torch.tensor(np.array(elevations), dtype=torch.float32))
        rays = Rays(torch.stack(origins), torch.stack(directions))
        output, truth = self._volume.render(field, rays, config.num_samples, generator), torch.stack(truths)
        colour = F.mse_loss(on_white(output), on_white(truth))
        mask = F.mse_loss(output[:, :, 3], truth[:, :, 3])
        opacity = self._volume.opacity(field, torch.stack(points), 2 / config.num_samples).clamp(1e-4, 1 - 1e-4)
        hull = F.binary_cross_entropy(opacity, torch.stack(hulls))
        loss = colour + config.mask_weight * mask + config.hull_weight * hull
        return loss, {"psnr": -10 * colour.log10().item(), "mask": mask.item(), "hull": hull.item()}

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        chosen = draw(self._config.loop.batch_size, len(self._orbits), self._seed, step)
        return [self._pack.entries[self._orbits[k]].object_id for k in chosen]

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """PSNR on white of whole orbits from their first view, the first view excluded, at the training resolution."""
        assert isinstance(network, CoarseVolume)
        rows, errors = [], []
        size = self._config.render_px
        for orbit in self._validation:
            cameras = self._pack.cameras_from(orbit, 0)
            frames = to_tensor(self._pack.frames[orbit])
            elevation = torch.tensor([np.radians(cameras[0].elevation_deg)], dtype=torch.float32)
            rays = make_rays(cameras, size)
            rays = Rays(rays.origins[None], rays.directions[None])
            output = network.render(network(frames[:1], elevation), rays, self._config.num_samples)[0]
            truth = downsampled(frames, size)
            errors.append((on_white(output) - on_white(truth))[1:].square().mean(dim=(1, 2, 3)))
            rows += [truth[::2], output[::2]]
        save_rows(rows, sheet)
        return {"psnr": (-10 * torch.stack(errors).log10()).mean().item()}


def hull_occupancy(alphas: Tensor, cameras: Sequence[Camera], points: Tensor) -> Tensor:
    """Whether points (P, 3), in frame radii, lie in the visual hull of silhouettes (V, S, S); (P,) in [0, 1].

    The least of all views' alpha (Laurentini 1994, softened): direct supervision of space, which the volume finds shape
    from many times faster than from rendered views alone.
    """
    radius = cameras[0].radius * np.sin(np.radians(cameras[0].fov_deg) / 2)
    seen = []
    for alpha, camera in zip(alphas, cameras, strict=True):
        pixels, _ = camera.project(points.numpy() * radius)
        uv = torch.from_numpy(pixels / (camera.width_px / 2) - 1).float()
        seen.append(F.grid_sample(alpha[None, None], uv[None, None], align_corners=False)[0, 0, 0])
    return torch.stack(seen).amin(dim=0).clamp(0, 1)


def mirrored(rgba: Tensor, rays: Rays, points: Tensor) -> tuple[Tensor, Rays, Tensor]:
    """Mirror an object left to right: frames flip, and so does the world's X."""
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    return rgba.flip(-1), Rays(rays.origins * mirror, (rays.directions * mirror).flip(-2)), points * mirror


def downsampled(rgba: Tensor, size_px: int) -> Tensor:
    """Resample straight-alpha frames (N, 4, H, W) with colours weighted by alpha."""
    premultiplied = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)
    small = F.interpolate(premultiplied, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False)
    return torch.cat([small[:, :3] / small[:, 3:].clamp(min=1e-4), small[:, 3:]], dim=1)


def on_white(rgba: Tensor) -> Tensor:
    """Composite (..., 4, H, W) on white."""
    alpha = rgba[..., 3:, :, :]
    return rgba[..., :3, :, :] * alpha + (1 - alpha)

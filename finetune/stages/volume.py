"""Training the coarse volume: one view of an orbit in, other views of it out."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.metrics.lpips import load_lpips
from finetune.config import RunConfig
from finetune.data import draw, validation_orbits
from finetune.pictures import recoloured, save_rows, to_tensor
from finetune.processes import WHOLE, MicroBatch
from finetune.space import SeenSpace
from mv3d.errors import Mv3dError
from mv3d.model.alpha import on_white, premultiplied, straight
from mv3d.model.volume import CoarseVolume, Rays, make_rays
from mv3d.model.weights import load_strict, load_weights
from mv3d.pack import Pack


@dataclass(frozen=True, eq=False)
class _Sample:
    """One view of an orbit as the picture, another as the truth, and points in space."""

    picture: Tensor
    elevation_rad: Tensor
    truth: Tensor
    rays: Rays
    asked: Tensor
    occupancy: Tensor
    surface: Tensor
    colour: Tensor

    def mirrored(self) -> _Sample:
        """Mirror the object left to right: pictures flip, and so does the world's X."""
        mirror = torch.tensor([-1.0, 1.0, 1.0])
        return replace(
            self,
            picture=self.picture.flip(-1),
            truth=self.truth.flip(-1),
            rays=Rays(self.rays.origins * mirror, (self.rays.directions * mirror).flip(-2)),
            asked=self.asked * mirror,
            surface=self.surface * mirror,
        )


class VolumeTraining:
    """Each sample: an orbit, one of its views as the picture, another as the truth, and what all show of space."""

    divisible = False
    images_per_sample = 1

    def __init__(self, run: RunConfig, pack: Pack, device: torch.device | str = "cpu") -> None:
        config = run.volume
        assert config is not None
        torch.manual_seed(run.seed)  # initial weights only
        self._volume = CoarseVolume(config.network).to(device)
        self.network: nn.Module = self._volume
        self._config = config
        self._device = device
        self._pack = pack
        self._seed = run.seed
        self._orbits = [k for k in pack.indices("train") if shows_surface(pack, k)]
        if not self._orbits:
            raise Mv3dError("no training orbit has depth maps; add them with: python -m render depth SOURCE --out DIR")
        self._validation = validation_orbits(pack, run.validation_objects)
        self._lpips = load_lpips("alex").to(device) if config.lpips_weight else None

    def start_from(self, model: Path) -> None:
        """Take the initial weights from a model folder."""
        load_strict(self._volume, load_weights(model / "volume", torch.float32), str(model / "volume"))

    def loss(self, step: int, generator: torch.Generator, part: MicroBatch = WHOLE) -> tuple[Tensor, dict[str, float]]:
        """Rendered views against true ones, and the field itself against what the orbit shows of space."""
        config, volume = self._config, self._volume
        chosen = draw(config.loop.batch_size, len(self._orbits), self._seed, step)
        samples = [self._sample(self._orbits[k], generator) for k in chosen]
        rays = Rays(*(torch.stack(r).to(self._device) for r in zip(*(sample.rays for sample in samples), strict=True)))
        names = [f.name for f in fields(_Sample) if f.name != "rays"]
        batch = {name: torch.stack([getattr(sample, name) for sample in samples]).to(self._device) for name in names}
        field = volume(batch["picture"], batch["elevation_rad"])
        output = volume.render(field, rays, config.num_samples, generator)
        squared = F.mse_loss(on_white(output), on_white(batch["truth"]))
        mask = F.mse_loss(output[:, :, 3], batch["truth"][:, :, 3])
        opacity = volume.opacity(field, batch["asked"], 2 / config.num_samples).clamp(1e-4, 1 - 1e-4)
        occupancy = F.binary_cross_entropy(opacity, batch["occupancy"])
        colour = F.mse_loss(volume.colour(field, batch["surface"]), batch["colour"])
        loss = squared + config.mask_weight * mask
        loss = loss + config.occupancy_weight * occupancy + config.colour_weight * colour
        metrics = {"mask": mask.item(), "occupancy": occupancy.item(), "colour": colour.item()}
        if self._lpips is not None:
            pairs = [_enlarged(on_white(views).flatten(0, 1)) for views in (output, batch["truth"])]
            lpips = self._lpips(*pairs).mean()
            loss = loss + config.lpips_weight * lpips
            metrics["lpips"] = lpips.item()
        return loss, {"psnr": -10 * squared.log10().item(), **metrics}

    def _sample(self, orbit: int, generator: torch.Generator) -> _Sample:
        config = self._config
        views = self._pack.frames.shape[1]
        start = int(torch.randint(views, (), generator=generator))
        targets = torch.randint(views, (1,), generator=generator)
        cameras = self._pack.cameras_from(orbit, start)
        rgba = recoloured(to_tensor(self._pack.frames_from(orbit, start)), generator)
        space = SeenSpace.of(rgba, np.roll(self._pack.depth[orbit], -start, axis=0), cameras)
        asked = space.points_to_ask(config.occupancy_points, generator)
        surface, colour = space.surface(config.colour_points, generator)
        sample = _Sample(
            picture=rgba[0],
            elevation_rad=torch.tensor(np.radians(cameras[0].elevation_deg), dtype=torch.float32),
            truth=downsampled(rgba[targets], config.render_px),
            rays=make_rays([cameras[k] for k in targets], config.render_px),
            asked=asked,
            occupancy=space.occupancy(asked),
            surface=surface,
            colour=colour,
        )
        return sample.mirrored() if torch.rand((), generator=generator) < 0.5 else sample

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        chosen = draw(self._config.loop.batch_size, len(self._orbits), self._seed, step)
        return [self._pack.entries[self._orbits[k]].object_id for k in chosen]

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """PSNR on white of whole orbits from their first view, the first view excluded, at the training resolution."""
        assert isinstance(network, CoarseVolume)
        if not self._validation:
            return {}
        rows, errors = [], []
        size = self._config.render_px
        for orbit in self._validation:
            cameras = self._pack.cameras_from(orbit, 0)
            frames = to_tensor(self._pack.frames[orbit])
            elevation = torch.tensor([np.radians(cameras[0].elevation_deg)], dtype=torch.float32)
            rays = make_rays(cameras, size)
            rays = Rays(*(part[None].to(self._device) for part in rays))
            field = network(frames[:1].to(self._device), elevation.to(self._device))
            output = network.render(field, rays, self._config.num_samples)[0].cpu()
            truth = downsampled(frames, size)
            errors.append((on_white(output) - on_white(truth))[1:].square().mean(dim=(1, 2, 3)))
            rows += [truth[::2], output[::2]]
        save_rows(rows, sheet)
        return {"psnr": (-10 * torch.stack(errors).log10()).mean().item()}


def shows_surface(pack: Pack, orbit: int) -> bool:
    """Whether an orbit has depth maps, of something that can be seen."""
    return bool(((pack.depth[orbit, 0] > 0) & (pack.frames[orbit, 0, ..., 3] > 128)).any())


def downsampled(rgba: Tensor, size_px: int) -> Tensor:
    """Resample straight-alpha frames (N, 4, H, W) with colours weighted by alpha."""
    size = (size_px, size_px)
    return straight(F.interpolate(premultiplied(rgba), size, mode="bilinear", antialias=True, align_corners=False))


def _enlarged(rgb: Tensor) -> Tensor:
    """Twice as large, since LPIPS' first layer sees 11 pixels at a time."""
    return F.interpolate(rgb, scale_factor=2.0, mode="bilinear")

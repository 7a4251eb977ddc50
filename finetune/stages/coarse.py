"""Training the coarse network: pictures in, the space that the object fills and the colours of its surface out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.config import RunConfig
from finetune.data import draw, validation_orbits
from finetune.networks import make_coarse_net, start_coarse_net
from finetune.pictures import save_rows
from finetune.processes import WHOLE, MicroBatch
from finetune.scenes import Scene, draw_scene
from mv3d.errors import Mv3dError
from mv3d.model.alpha import on_white
from mv3d.model.coarse import (
    CoarseNet,
    Field,
    Pictures,
    SilhouetteRays,
    ray_points,
    sample_grid,
    sample_volume,
    voxel_centres,
)
from mv3d.model.drawing import filled_colours
from mv3d.model.frustum import across
from mv3d.pack import Pack

_SHARING = ((2, 2), (3, 1), (1, 3), (4,))  # how half of a batch of eight falls to objects that are seen several times
_IN_CONE = 0.1  # alpha
_SHEET_SIZE = 64


class _Overlap(NamedTuple):
    """How predicted and true occupancy agree."""

    entropy: Tensor
    dice: Tensor

    @property
    def loss(self) -> Tensor:
        return self.entropy + self.dice


class CoarseTraining:
    """Half of the pictures are their object's only one; the others share objects, two to four of them."""

    divisible = False
    images_per_sample = 1

    def __init__(self, run: RunConfig, pack: Pack, device: torch.device | str = "cpu") -> None:
        config = run.coarse
        assert config is not None
        self._net = make_coarse_net(run)
        self._device = device
        for module in self._net.picture_net.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.network: nn.Module = self._net.to(device)
        self._config = config
        self._pack = pack
        self._seed = run.seed
        self._orbits = [k for k in pack.indices("train") if pack.occupancy[k].any()]
        if not self._orbits:
            raise Mv3dError(
                "no training orbit has occupancy and depth; make some with: python -m render orbits SOURCE --out DIR "
                "--passes depth occupancy"
            )
        self._validation = [k for k in validation_orbits(pack, 10**9) if pack.occupancy[k].any()]
        self._validation = self._validation[:: max(1, len(self._validation) // run.validation_objects)]
        self._validation = self._validation[: run.validation_objects]

    def start_from(self, model: Path) -> None:
        """Take the initial weights from a model folder."""
        start_coarse_net(self._net, model)

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows, and maybe some more."""
        return [self._pack.entries[self._orbits[k]].object_id for k in self._draw(step)]

    def _draw(self, step: int) -> np.ndarray:
        return draw(self._config.loop.batch_size, len(self._orbits), self._seed, step)

    def loss(self, step: int, generator: torch.Generator, part: MicroBatch = WHOLE) -> tuple[Tensor, dict[str, float]]:
        """Overlap and cross-entropy of occupancy, of single pictures and of all together; geometry and colour."""
        config, net = self._config, self._net
        counts = self._pictures_per_object(generator)
        scenes = [
            draw_scene(self._pack, self._orbits[k], count, config.colour_points, generator).to(self._device)
            for k, count in zip(self._draw(step), counts, strict=False)
        ]
        owner = torch.tensor([b for b, count in enumerate(counts) for _ in range(count)], device=self._device)
        poses = torch.cat([scene.poses for scene in scenes])
        field, seen = net(Pictures(torch.cat([scene.shown for scene in scenes]), poses, owner))
        # Colours are those of the object, and looked up without the spots: else the network learns not to trust them.
        field = field._replace(colours=filled_colours(torch.cat([scene.rgba for scene in scenes])))
        chosen = self._choose_rays(field, generator)
        truth, weight = self._truth(field, chosen, scenes)
        single = _overlap(field.ray_logits[chosen], truth, weight, field.rays.picture[chosen])
        together = self._together(field, chosen, truth, weight)
        missed = seen.elevation_rad - poses[:, 1]
        geometry = self._geometry(field, seen.ray_geometry[chosen], chosen, scenes)
        surface = torch.stack([scene.surface for scene in scenes])
        colours = torch.stack([scene.colour for scene in scenes])
        wrong = (net.colour(field, surface) - colours).abs()
        colour = wrong[colours.isfinite()].mean() if colours.isfinite().any() else wrong.new_zeros(())
        loss = together.loss + config.single_picture_weight * single.loss + config.colour_weight * colour
        loss = loss + config.geometry_weight * geometry + F.smooth_l1_loss(missed, torch.zeros_like(missed), beta=0.1)
        return loss, {
            "dice": together.dice.item(),
            "entropy": together.entropy.item(),
            "dice_single_picture": single.dice.item(),
            "geometry": geometry.item(),
            "colour": colour.item(),
            "elevation_deg": missed.abs().rad2deg().mean().item(),
        }

    def _pictures_per_object(self, generator: torch.Generator) -> list[int]:
        size = self._config.loop.batch_size
        if size < 8:
            return [1] * size
        sharing = _SHARING[int(torch.randint(len(_SHARING), (), generator=generator))]
        return [1] * (size - 4) + list(sharing)

    def _choose_rays(self, field: Field, generator: torch.Generator) -> Tensor:
        """Indices of at most ``rays_per_picture`` rays of each picture, in order."""
        picture = field.rays.picture
        priority = torch.rand(len(picture), generator=generator).to(picture.device)
        kept = []
        for p in range(len(field.pictures.rgba)):
            mine = (picture == p).nonzero()[:, 0]
            kept.append(mine[priority[mine].argsort()[: self._config.rays_per_picture]])
        return torch.cat(kept)

    def _truth(self, field: Field, chosen: Tensor, scenes: list[Scene]) -> tuple[Tensor, Tensor]:
        """How full the chosen rays' bins (C, D) are, and which of them count."""
        net, config = self._net, self._net.config
        rays = SilhouetteRays(*(part[chosen] for part in field.rays))
        points = ray_points(net.frustum, rays, field.pictures.poses, config.rays_px, config.num_bins)
        alpha = F.interpolate(field.pictures.rgba[:, 3:], (config.rays_px, config.rays_px), mode="area")[:, 0]
        in_cone = alpha[rays.picture, rays.row, rays.column] > _IN_CONE
        weight = in_cone[:, None] * (points.square().sum(-1) < 1)
        truth = torch.empty(points.shape[:2], device=points.device)
        owner = field.pictures.owner[rays.picture]
        for b, scene in enumerate(scenes):
            truth[owner == b] = scene.occupancy(points[owner == b].reshape(-1, 3)).view(-1, config.num_bins)
        return truth, weight.float()

    def _together(self, field: Field, chosen: Tensor, truth: Tensor, weight: Tensor) -> _Overlap:
        """What all pictures and the grid say of the rays of each object's first picture."""
        net, config, pictures = self._net, self._net.config, field.pictures
        picture = field.rays.picture[chosen]
        first = pictures.firsts()
        logits, kept = [], []
        for b in range(pictures.num_objects):
            mine = chosen[picture == first[b]]
            rays = SilhouetteRays(*(part[mine] for part in field.rays))
            points = ray_points(net.frustum, rays, pictures.poses, config.rays_px, config.num_bins).reshape(1, -1, 3)
            predicted = [field.ray_logits[mine].reshape(-1)]
            for p in range(int(first[b]) + 1, len(pictures.owner)):
                if pictures.owner[p] == b:
                    at = net.frustum.project(points, pictures.poses[p : p + 1])
                    predicted.append(sample_volume(field.volume[p : p + 1].float(), at).reshape(-1))
            more = sample_grid(field.residual[b : b + 1], points).reshape(-1)
            logits.append((torch.stack(predicted).mean(dim=0) + more).view(-1, config.num_bins))
            kept.append((picture == first[b]).nonzero()[:, 0])
        at = torch.cat(kept)
        return _overlap(torch.cat(logits), truth[at], weight[at], picture[at])

    def _geometry(self, field: Field, found: Tensor, chosen: Tensor, scenes: list[Scene]) -> Tensor:
        """Error of the first surface's place across the slices, and of its normal along their axes."""
        frustum = self._net.frustum
        depth = torch.cat([scene.depth for scene in scenes])
        in_cam = frustum.unproject_depth(depth)
        rays = SilhouetteRays(*(part[chosen] for part in field.rays))
        row, column = rays.row * 2, rays.column * 2
        here, right, below = (in_cam[rays.picture, row + dr, column + dc] for dr, dc in ((0, 0), (0, 1), (1, 0)))
        known = (depth[rays.picture, row, column] > 0) & ((right - here).norm(dim=-1) < 0.05)
        known &= (below - here).norm(dim=-1) < 0.05
        if not known.any():
            return found.sum() * 0
        forward = across(field.pictures.poses)[rays.picture]
        in_world = here + here.new_tensor([0.0, 0.0, frustum.distance])
        along = (in_world * forward).sum(dim=-1)
        normal = F.normalize(torch.linalg.cross(below - here, right - here), dim=-1)
        up = torch.stack([forward[:, 0], -forward[:, 2], forward[:, 1]], dim=-1)
        normal = torch.stack([normal[:, 0], (normal * up).sum(-1), -(normal * forward).sum(-1)], dim=-1)
        missed = (found[:, 0] - along).abs()[known].mean()
        turned = 1 - F.cosine_similarity(found[:, 1:], normal, dim=-1)[known].mean()
        return missed + 0.2 * turned

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """Voxel IoU at .5 of 64^3 inside the picture's cone, elevation's median error, and colours' mean error."""
        assert isinstance(network, CoarseNet)
        overlaps, colours, missed, rows = [], [], [], []
        points = voxel_centres(_SHEET_SIZE).to(self._device)
        for k in self._validation:
            scene = draw_scene(self._pack, k, 1, 2048, torch.Generator().manual_seed(k)).to(self._device)
            pictures = Pictures(scene.rgba, scene.poses, torch.zeros(1, dtype=torch.long, device=self._device))
            field, seen = network(pictures)
            carved = network.silhouettes(field, points)[0] > 0.5
            inside = (network.occupancy_logits(field, points)[0] > 0) & carved
            truth = scene.occupancy(points[0]) > 0.5
            overlaps.append((inside & truth).sum() / (inside | truth).sum().clamp(min=1))
            colours.append((network.colour(field, scene.surface[None])[0] - scene.colour).abs().mean())
            missed.append((seen.elevation_rad - scene.poses[:, 1]).abs().rad2deg())
            rows.append(torch.stack([_picture_of(scene.rgba[0]), *_thickness(truth), *_thickness(inside)]).cpu())
        if not rows:
            return {}
        save_rows(rows[:16], sheet)
        return {
            "voxel_iou": torch.stack(overlaps).mean().item(),
            "colour": torch.stack(colours).nanmean().item(),
            "elevation_deg": torch.cat(missed).median().item(),
        }


def _overlap(logits: Tensor, truth: Tensor, weight: Tensor, picture: Tensor) -> _Overlap:
    """Cross-entropy, and one less the soft Dice overlap, of every picture's rays (C, D); means over pictures."""
    full = torch.sigmoid(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * weight
    parts = torch.stack([entropy, weight, full * truth * weight, (full + truth) * weight]).sum(-1)
    count = int(picture.max()) + 1
    entropy, total, both, either = parts.new_zeros(4, count).index_add(1, picture, parts)
    present = total > 0
    dice = 1 - (2 * both + 1) / (either + 1)
    return _Overlap((entropy / total.clamp(min=1))[present].mean(), dice[present].mean())


def _picture_of(rgba: Tensor) -> Tensor:
    return F.interpolate(on_white(rgba)[None], (_SHEET_SIZE, _SHEET_SIZE))[0]


def _thickness(filled: Tensor) -> list[Tensor]:
    """How thick a grid (D^3,) is from the front, the side and above: three pictures (3, D, D), white is nothing."""
    grid = filled.view((_SHEET_SIZE,) * 3).float()
    views = [grid.mean(dim=1).flip(0), grid.mean(dim=2).flip(0), grid.mean(dim=0).flip(0)]
    return [(1 - (4 * view).clamp(max=1)).expand(3, -1, -1) for view in views]

"""The coarse network: pictures of an object become a field of occupancy and colour around it.

Two networks share the work. One understands each picture in 2D, on a pretrained backbone, and tells how full the bins
along every ray are (depth as channels: Jackson et al. 2017, "VRN"), at the picture's resolution. One in 3D sees its
features and occupancies, and those of a small 2D network of its own, unprojected into a grid that is turned with the
first picture, and adds what no ray of the pictures shows. Lengths are frame radii, see `mv3d.model.frustum`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mv3d.model.alpha import premultiplied
from mv3d.model.coarse_config import CoarseConfig
from mv3d.model.drawing import Appearance, filled_colours
from mv3d.model.feature_net import UNet
from mv3d.model.frustum import Frustum, pixel_uv
from mv3d.model.picture_net import PictureFeatures, PictureNet

_EMPTY_LOGIT = -8.0
_LEAST_TRUST = 0.02
_APPEARANCE = 8  # numbers a voxel
_RESIDUAL_FINENESS = 2  # cells of the residual along an edge of one of the grid's
_REDUCED = 24  # channels that the finest features of the backbone are reduced to before they enter the grid


class Pictures(NamedTuple):
    """Pictures of several objects, P in all, those of one object behind one another."""

    rgba: Float[Tensor, "P 4 S S"]
    """(P, 4, S, S), straight, in [0, 1]."""
    poses: Float[Tensor, "P 2"]
    """(P, 2), azimuth and elevation of their cameras in radians; an object's first picture is at azimuth 0."""
    owner: Int64[Tensor, " P"]
    """(P,), which object it shows: 0, 0, 1, 2, ..."""

    @property
    def num_objects(self) -> int:
        """How many objects there are."""
        return int(self.owner[-1]) + 1

    def firsts(self) -> Int64[Tensor, " B"]:
        """Index of every object's first picture."""
        return torch.searchsorted(self.owner, torch.arange(self.num_objects, device=self.owner.device))


class SilhouetteRays(NamedTuple):
    """The K rays of pictures that meet their objects' silhouettes, as places of (P, R, R)."""

    picture: Int64[Tensor, " K"]
    row: Int64[Tensor, " K"]
    column: Int64[Tensor, " K"]


class Field(NamedTuple):
    """What the networks say of B objects."""

    pictures: Pictures
    colours: Float[Tensor, "P 3 S S"]
    """(P, 3, S, S), the pictures' own, spread over their backgrounds."""
    rays: SilhouetteRays
    ray_logits: Float[Tensor, "K D"]
    """(K, D), how full the bins along the rays are, as far as their own picture tells."""
    volume: Float[Tensor, "P 1 R R D"]
    """(P, 1, R, R, D), the same where the rays are, and empty elsewhere."""
    trust: Float[Tensor, "P 1 G G D/2"]
    """(P, 1, G, G, D / 2), how much of a picture's light comes from places: 1 up to its first surface, then less."""
    residual: Float[Tensor, "B 1 2*G 2*G 2*G"]
    """(B, 1, 2 G, 2 G, 2 G), G being `CoarseConfig.grid_size`, what is added to the logits, (Z, Y, X)."""
    appearance: Float[Tensor, "B 8 G G G"]
    """(B, 8, G, G, G): colour 3, displacement of the colour look-up 2, logits of the three colour sources 3."""


class CoarseNet(nn.Module):
    """Pictures to a `Field`, and answers of a field about points in space."""

    def __init__(self, config: CoarseConfig) -> None:
        super().__init__()
        self.config = config
        self.frustum = Frustum(config.fov_deg)
        widths, image, grid = config.picture_channels, config.image_channels, config.grid_channels
        self.picture_net = PictureNet(config.backbone_px, widths, config.rays_px, config.fine_channels, config.num_bins)
        self.reduce = nn.Conv2d(widths[0], _REDUCED, 1)
        self.image_net = UNet(2, 4, image, first_stride=2)
        per_voxel = image[0] + 4 + 3 + _REDUCED + 2
        injected = tuple(a + b for a, b in zip(image[1:], widths[1:], strict=True))
        self.grid_net = UNet(3, per_voxel, grid, injected=injected)
        self.residual_head = nn.Conv3d(grid[0], _RESIDUAL_FINENESS**3, 1)
        self.appearance_head = nn.Conv3d(grid[0], _APPEARANCE, 1)
        with torch.no_grad():  # begin with what the pictures' rays say alone, and look-ups at the voxel's own pixel
            self.residual_head.weight.zero_()
            self.appearance_head.weight[3:5].zero_()

    def estimate_elevation(self, rgba: Float[Tensor, "P 4 S S"]) -> Float[Tensor, " P"]:
        """Elevation (P,) in radians of the cameras of pictures (P, 4, S, S)."""
        return self.picture_net.elevation(self.picture_net.levels(rgba)[-1])

    def forward(self, pictures: Pictures) -> tuple[Field, PictureFeatures]:
        """The field of pictures, and what else was understood of them."""
        config = self.config
        elevation_rad = pictures.poses[:, 1]
        seen = self.picture_net(pictures.rgba, elevation_rad)
        rays = silhouette_rays(pictures.rgba, config.rays_px)
        ray_logits, geometry = self.picture_net.ask_rays(seen, elevation_rad, *rays)
        seen = seen._replace(ray_geometry=geometry)
        shape = (len(pictures.rgba), config.rays_px, config.rays_px, config.num_bins)
        volume = torch.full(shape, _EMPTY_LOGIT, dtype=ray_logits.dtype, device=ray_logits.device)
        volume = volume.index_put((rays.picture, rays.row, rays.column), ray_logits)[:, None]
        with torch.no_grad():
            pooled = config.rays_px // config.grid_size
            full = F.avg_pool3d(torch.sigmoid(volume.detach().float()), (pooled, pooled, 2))
            passed = torch.cumprod(1 - full.clamp(max=0.999), dim=-1)
            trust = torch.cat([torch.ones_like(passed[..., :1]), passed[..., :-1]], dim=-1)
        grids = self._unproject(pictures, seen, full, trust)
        x = self.grid_net(grids[0], grids[1:])[0]
        residual = unfold_voxels(self.residual_head(x), _RESIDUAL_FINENESS)
        appearance = self.appearance_head(x)
        colours = filled_colours(pictures.rgba)
        return Field(pictures, colours, rays, ray_logits, volume, trust, residual.float(), appearance.float()), seen

    def flip_averaged(self, pictures: Pictures) -> Field:
        """The field of pictures, averaged with what is said of the mirrored ones, mirrored back.

        The two err differently, so the mean errs less, and mirrored pictures get mirrored fields.
        """
        mirror = pictures.poses.new_tensor([-1.0, 1.0])
        seen, _ = self(pictures)
        mirrored, _ = self(pictures._replace(rgba=pictures.rgba.flip(-1), poses=pictures.poses * mirror))
        before, u, after = mirrored.appearance.flip(-1).split([3, 1, 4], dim=1)
        appearance = torch.cat([before, -u, after], dim=1)  # the look-up's displacement to the right is one to the left
        return seen._replace(
            volume=(seen.volume + mirrored.volume.flip(-2)) / 2,
            trust=(seen.trust + mirrored.trust.flip(-2)) / 2,
            residual=(seen.residual + mirrored.residual.flip(-1)) / 2,
            appearance=(seen.appearance + appearance) / 2,
        )

    def _unproject(
        self,
        pictures: Pictures,
        seen: PictureFeatures,
        full: Float[Tensor, "P 1 G G bins"],
        trust: Float[Tensor, "P 1 G G bins"],
    ) -> list[Tensor]:
        """Grids (B, C, G, G, G) of every level, finest first: means over an object's pictures by their trust."""
        shown = premultiplied(pictures.rgba)
        own = self.image_net(F.avg_pool2d(shown, 2) * 2 - 1)
        understood = (self.reduce(seen.levels[0]), *seen.levels[1:])
        grids = []
        for level, features in enumerate(zip(own, understood, strict=True)):
            size = self.config.grid_size >> level
            points = voxel_centres(size, shown.device).expand(len(shown), -1, -1)
            at = self.frustum.project(points, pictures.poses)
            rgba = sample_picture(shown, at[..., :2])
            weight = _LEAST_TRUST + rgba[:, 3:] * sample_volume(trust, at)
            first, second = (sample_picture(part, at[..., :2]) for part in features)
            values = [first, second]
            if level == 0:
                values = [first, rgba, points.mT, second, sample_volume(full, at), sample_volume(trust, at)]
            values = torch.cat([part.to(first) for part in values], dim=1)
            weight = weight.to(values)
            total = _per_object(torch.cat([values * weight, weight], dim=1), pictures)
            grids.append((total[:, :-1] / total[:, -1:]).unflatten(-1, (size, size, size)))
        return grids

    def occupancy_logits(self, field: Field, points: Float[Tensor, "B P 3"]) -> Float[Tensor, "B P"]:
        """Logits (B, P) of points (B, P, 3) being inside, before silhouettes carve."""
        owner = field.pictures.owner
        at = self.frustum.project(points[owner], field.pictures.poses)
        logits = sample_volume(field.volume.float(), at)
        mean = _per_object(torch.cat([logits, torch.ones_like(logits)], dim=1), field.pictures)
        return mean[:, 0] / mean[:, 1] + sample_grid(field.residual, points)[:, 0]

    def silhouettes(self, field: Field, points: Float[Tensor, "B P 3"]) -> Float[Tensor, "B P"]:
        """Least alpha (B, P) that any picture has at points (B, P, 3); 0 outside the unit sphere."""
        owner = field.pictures.owner
        at = self.frustum.project(points[owner], field.pictures.poses)
        alpha = sample_picture(field.pictures.rgba[:, 3:], at[..., :2])[:, 0]
        least = torch.ones(points.shape[:2], device=points.device, dtype=alpha.dtype)
        least = least.scatter_reduce(0, owner[:, None].expand_as(alpha), alpha, "amin")
        return least * (points.square().sum(-1) < 1)

    def appearance(self, field: Field, points: Float[Tensor, "B P 3"]) -> Appearance:
        """What points (B, P, 3) look like, whatever is there.

        A learned blend of a predicted colour, the pictures' pixels in front, and a pixel elsewhere in the first one.
        """
        pictures = field.pictures
        at = self.frustum.project(points[pictures.owner], pictures.poses)
        weight = _LEAST_TRUST + sample_volume(field.trust, at)
        pixels = sample_picture(field.colours, at[..., :2])
        front = _per_object(torch.cat([pixels * weight, weight], dim=1), pictures)
        front = front[:, :3] / front[:, 3:]
        appearance = sample_grid(field.appearance, points)
        first = pictures.firsts()
        elsewhere = at[first][..., :2] + torch.tanh(appearance[:, 3:5]).mT
        away = sample_picture(field.colours[first], elsewhere)
        share = appearance[:, 5:8].softmax(dim=1)
        rgb = share[:, :1] * torch.sigmoid(appearance[:, :3]) + share[:, 1:2] * front + share[:, 2:3] * away
        return Appearance(rgb, share[:, 1], share[:, 2])

    def colour(self, field: Field, points: Float[Tensor, "B P 3"]) -> Float[Tensor, "B 3 P"]:
        """Colours (B, 3, P) at points (B, P, 3)."""
        return self.appearance(field, points).rgb


def silhouette_rays(rgba: Float[Tensor, "P 4 S S"], rays_px: int) -> SilhouetteRays:
    """Which of rays_px x rays_px rays meet the silhouettes of pictures (P, 4, S, S), or pass close by."""
    alpha = F.max_pool2d(F.interpolate(rgba[:, 3:], (rays_px, rays_px), mode="area"), 3, stride=1, padding=1)
    return SilhouetteRays(*(alpha[:, 0] > 0.02).nonzero().unbind(-1))


def ray_points(
    frustum: Frustum, rays: SilhouetteRays, poses: Float[Tensor, "P 2"], rays_px: int, num_bins: int
) -> Float[Tensor, "K {num_bins} 3"]:
    """Centres (K, D, 3) of the rays' bins; ``poses`` (P, 2) are the pictures'."""
    uv = pixel_uv(rays_px, poses.device)[rays.row, rays.column]
    return frustum.points(uv, poses[rays.picture], num_bins)


def _per_object(values: Float[Tensor, "P ..."], pictures: Pictures) -> Float[Tensor, "B ..."]:
    """Sums (B, ...) of values (P, ...) over the pictures of each object."""
    if pictures.num_objects == len(values):
        return values
    out = values.new_zeros(pictures.num_objects, *values.shape[1:])
    return out.index_add(0, pictures.owner, values)


def voxel_centres(size: int, device: torch.device | None = None) -> Float[Tensor, "1 {size**3} 3"]:
    """World positions (1, size^3, 3) of a (Z, Y, X) grid over [-1, 1]^3."""
    axis = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(1, -1, 3)


def sample_picture(picture: Float[Tensor, "B C S S"], uv: Float[Tensor, "B P 2"]) -> Float[Tensor, "B C P"]:
    """Bilinear look-up of (B, C, S, S) at uv (B, P, 2); returns (B, C, P)."""
    return F.grid_sample(picture, uv[:, None].to(picture), align_corners=False, padding_mode="border")[:, :, 0]


def sample_volume(volume: Float[Tensor, "B 1 rows columns bins"], at: Float[Tensor, "B P 3"]) -> Float[Tensor, "B 1 P"]:
    """Trilinear look-up of (B, 1, rows, columns, bins) at (u, v, along) (B, P, 3); returns (B, 1, P)."""
    order = at.roll(1, dims=-1)[:, :, None, None]
    return F.grid_sample(volume, order.to(volume), align_corners=False, padding_mode="border")[..., 0, 0]


def sample_grid(grid: Float[Tensor, "B C Z Y X"], points: Float[Tensor, "B P 3"]) -> Float[Tensor, "B C P"]:
    """Trilinear look-up of (B, C, Z, Y, X) at points (B, P, 3); returns (B, C, P)."""
    return F.grid_sample(grid, points[:, :, None, None].to(grid), align_corners=False, padding_mode="border")[..., 0, 0]


def unfold_voxels(
    x: Float[Tensor, "B CF G G G"], factor: int
) -> Float[Tensor, "B CF//{factor**3} {factor}*G {factor}*G {factor}*G"]:
    """Rearrange (B, C f^3, G, G, G) to (B, C, fG, fG, fG), the pixel shuffle of three dimensions."""
    batch, _, size, _, _ = x.shape
    x = x.reshape(batch, -1, factor, factor, factor, size, size, size)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, -1, factor * size, factor * size, factor * size)

"""The coarse volume: one picture becomes a small field of density and colour, and the field becomes views.

It is feed-forward: features of the picture are unprojected along the picture's own rays into a grid, fine ones into the
grid itself and coarse ones into the coarser levels of a 3D U-Net, which completes what the picture does not show; views
are volume-rendered (Max 1995; NeRF, Mildenhall et al. 2020, eq. 3).

Everything here is measured in *frame radii*: the sphere that just fits the frame of a camera looking at the origin has
radius 1, whatever the camera's distance in the world. The picture's camera stands at azimuth 0; grids are (Z, Y, X).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import radians, sin, tan
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mv3d.cameras import DEFAULT_FOV_DEG, Camera
from mv3d.model.alpha import premultiplied, straight
from mv3d.model.drawing import Appearance
from mv3d.model.feature_net import UNet
from mv3d.model.frustum import Frustum

_OPAQUE_STEP = (
    0.2  # frame radii: a place is inside whose surroundings, so thick, are opaque; best on validation objects
)


@dataclass(frozen=True)
class CoarseVolumeConfig:
    """Sizes of the network; they are stored beside the weights."""

    picture_px: int = 128
    grid_size: int = 32
    image_channels: tuple[int, ...] = (24, 48, 96, 128)
    """Channels of the picture's features at 1/2, 1/4, 1/8 … of its size."""
    grid_channels: tuple[int, ...] = (32, 64, 128, 192)
    """Channels of the grid's features at 1, 1/2, 1/4 … of its size; as many levels as the picture's."""
    density_upsampling: int = 2
    """Density is predicted on a grid this many times finer than colour."""
    fov_deg: float = DEFAULT_FOV_DEG


class DensityField(NamedTuple):
    """What the network says of an object: density, appearance, and the picture it looks colours up in."""

    density: Float[Tensor, "B 1 D D D"]
    """(B, 1, D, D, D), before the softplus."""
    appearance: Float[Tensor, "B 8 G G G"]
    """(B, 8, G, G, G): colour 3, displacement of the colour look-up 2, logits of the three colour sources 3."""
    picture: Float[Tensor, "B 4 S S"]
    """(B, 4, S, S), straight RGBA."""
    elevation_rad: Float[Tensor, " B"]
    """(B,), of the picture's camera."""


class Rays(NamedTuple):
    """Viewing rays in frame radii: ``origins`` (..., 3) and unit ``directions`` (..., height, width, 3)."""

    origins: Float[Tensor, "*B 3"]
    directions: Float[Tensor, "*B H W 3"]


class _LookUp(NamedTuple):
    """Where the picture shows P points: ``uv`` (B, P, 2), and whether its object is there, ``inside`` (B, P)."""

    uv: Float[Tensor, "B P 2"]
    inside: Float[Tensor, "B P"]


class _Appearance(NamedTuple):
    """What P points look like and why: their colour ``rgb`` (B, 3, P) is blended from three sources."""

    rgb: Float[Tensor, "B 3 P"]
    predicted: Float[Tensor, "B 3 P"]
    """(B, 3, P), the network's own answer."""
    away_uv: Float[Tensor, "B P 2"]
    """(B, P, 2), the place of the pixel elsewhere in the picture."""
    share: Float[Tensor, "B 3 P"]
    """(B, 3, P), of the predicted colour, the pixel in front and the pixel elsewhere; they add up to 1."""


def make_rays(cameras: Sequence[Camera], size_px: int) -> Rays:
    """Rays of square views ``size_px`` wide through the pixel centres of cameras that look at the origin."""
    small = [camera.resized(size_px, size_px) for camera in cameras]
    origins = np.stack([c.position / (c.radius * sin(radians(c.fov_deg) / 2)) for c in small])
    directions = np.stack([c.directions(c.pixel_grid()) for c in small])
    return Rays(torch.from_numpy(origins).float(), torch.from_numpy(directions).float())


class CoarseVolume(nn.Module):
    """Picture and elevation to a `DensityField`, and a field to views."""

    def __init__(self, config: CoarseVolumeConfig) -> None:
        super().__init__()
        self.config = config
        self.frustum = Frustum(config.fov_deg)
        image, grid = config.image_channels, config.grid_channels
        self.image_net = UNet(2, 4, image, first_stride=2)
        # Per voxel: the picture's features, the pixel itself, and where the voxel is.
        self.grid_net = UNet(3, image[0] + 4 + 3, grid, injected=image[1:])
        self.density_head = nn.Conv3d(grid[0], config.density_upsampling**3, 1)
        self.appearance_head = nn.Conv3d(grid[0], 8, 1)
        with torch.no_grad():  # begin with look-ups at the voxel's own pixel
            self.appearance_head.weight[3:5].zero_()

    def forward(self, picture: Float[Tensor, "B 4 S S"], elevation_rad: Float[Tensor, " B"]) -> DensityField:
        """Complete the field of pictures (B, 4, S, S), straight RGBA in [0, 1], taken at ``elevation_rad`` (B,)."""
        seen = premultiplied(picture)
        features = self.image_net(seen * 2 - 1)
        grids = []
        for level, feature in enumerate(features):
            size = self.config.grid_size >> level
            points = _voxel_centres(size, picture).expand(len(picture), -1, -1)
            uv = self._project(points, elevation_rad)
            per_voxel = [_sample_picture(feature, uv)]
            if level == 0:
                per_voxel += [_sample_picture(seen, uv), points.transpose(1, 2)]
            grids.append(torch.cat(per_voxel, dim=1).unflatten(-1, (size, size, size)))
        x = self.grid_net(grids[0], grids[1:])[0]
        density = _unfold_voxels(self.density_head(x), self.config.density_upsampling)
        return DensityField(
            density.float(), self.appearance_head(x).float(), picture, elevation_rad
        )  # out of autocast's hands

    def flip_averaged(self, picture: Float[Tensor, "B 4 S S"], elevation_rad: Float[Tensor, " B"]) -> DensityField:
        """`forward`, averaged with what it says of the mirrored picture, mirrored back.

        The two err differently, so the mean errs less, and mirrored pictures get mirrored fields.
        """
        seen, mirrored = self(picture, elevation_rad), self(picture.flip(-1), elevation_rad)
        before, u, after = mirrored.appearance.flip(-1).split([3, 1, 4], dim=1)
        appearance = torch.cat([before, -u, after], dim=1)  # the look-up's displacement to the right is one to the left
        return seen._replace(
            density=(seen.density + mirrored.density.flip(-1)) / 2, appearance=(seen.appearance + appearance) / 2
        )

    def render(
        self, field: DensityField, rays: Rays, num_samples: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "B V 4 H W"]:
        """Volume-render views, (B, V, 4, height, width), straight RGBA in [0, 1], with gradients.

        ``rays`` are (B, V, ...). With a generator the samples along each ray are jittered, as in training.
        """
        batch, views, height, width, _ = rays.directions.shape
        points = _points_along(rays, num_samples, generator)  # (B, rays, samples, 3)
        flat = points.reshape(batch, -1, 3)
        seen = self._look_up(field, flat)
        density = self._density(field, flat) * seen.inside
        weight = _ray_weights(density.reshape(points.shape[:-1]))
        colour = self._appearance(field, flat, seen.uv).rgb.reshape(batch, 3, *points.shape[1:-1])
        rgba = torch.cat([(weight[:, None] * colour).sum(-1), weight.sum(-1)[:, None]], dim=1)
        return straight(rgba.reshape(batch, 4, views, height, width).transpose(1, 2)).clamp(0, 1)

    def occupancy_logits(self, field: DensityField, points: Float[Tensor, "B P 3"]) -> Float[Tensor, "B P"]:
        """Logits (B, P) of points (B, P, 3) being opaque, before carving; over the step that training asked of."""
        return torch.log(torch.expm1((self._density(field, points) * _OPAQUE_STEP).clamp(min=1e-6)))

    def appearance(self, field: DensityField, points: Float[Tensor, "B P 3"]) -> Appearance:
        """What points (B, P, 3) look like, whatever the density there."""
        found = self._appearance(field, points, self._project(points, field.elevation_rad))
        return Appearance(found.rgb, found.share[:, 1], found.share[:, 2])

    def opacity(self, field: DensityField, points: Float[Tensor, "B P 3"], step: float) -> Float[Tensor, "B P"]:
        """How opaque ``step`` frame radii of the field are at points (B, P, 3), before carving; (B, P) in [0, 1]."""
        return 1 - torch.exp(-self._density(field, points) * step)

    def colour(self, field: DensityField, points: Float[Tensor, "B P 3"]) -> Float[Tensor, "B 3 P"]:
        """The colour of the field at points (B, P, 3), whatever its density there; (B, 3, P) in [0, 1]."""
        return self._appearance(field, points, self._project(points, field.elevation_rad)).rgb

    def _look_up(self, field: DensityField, points: Float[Tensor, "B P 3"]) -> _LookUp:
        """Where the picture shows points (B, P, 3), and what may be there."""
        uv = self._project(points, field.elevation_rad)
        # Nothing can be where the picture shows the background: the silhouette carves, at the picture's resolution.
        alpha = _sample_picture(field.picture[:, 3:], uv)[:, 0]
        return _LookUp(uv, alpha * (points.square().sum(-1) < 1))

    def _density(self, field: DensityField, points: Float[Tensor, "B P 3"]) -> Float[Tensor, "B P"]:
        """Density (B, P) per frame radius, before carving."""
        return F.softplus(_sample_grid(field.density, points)[:, 0] * 4 - 1) * 8

    def _appearance(
        self, field: DensityField, points: Float[Tensor, "B P 3"], front_uv: Float[Tensor, "B P 2"]
    ) -> _Appearance:
        """A learned blend of a predicted colour, the picture's pixel in front, and a pixel elsewhere in it."""
        appearance = _sample_grid(field.appearance, points)
        predicted = torch.sigmoid(appearance[:, :3])
        away_uv = front_uv + torch.tanh(appearance[:, 3:5]).mT
        front, away = (_sample_picture(field.picture[:, :3], uv) for uv in (front_uv, away_uv))
        share = appearance[:, 5:8].softmax(dim=1)
        rgb = share[:, :1] * predicted + share[:, 1:2] * front + share[:, 2:3] * away
        return _Appearance(rgb, predicted, away_uv, share)

    def _project(self, points: Float[Tensor, "B *P 3"], elevation_rad: Float[Tensor, " B"]) -> Float[Tensor, "B *P 2"]:
        """Where points (B, ..., 3) are seen in the picture, (B, ..., 2) in [-1, 1], +v down."""
        half = radians(self.config.fov_deg) / 2
        shape = (-1,) + (1,) * (points.dim() - 2)
        cosine, sine = torch.cos(elevation_rad).view(shape), torch.sin(elevation_rad).view(shape)
        x, y, z = points.unbind(-1)
        depth = 1 / sin(half) + y * cosine - z * sine
        up = y * sine + z * cosine
        return torch.stack([x, -up], dim=-1) / (depth * tan(half))[..., None]


def _voxel_centres(size: int, like: Tensor) -> Float[Tensor, "1 {size**3} 3"]:
    """World positions (1, size^3, 3) of a (Z, Y, X) grid over [-1, 1]^3."""
    axis = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size * 2 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(1, -1, 3)


def _points_along(
    rays: Rays, num_samples: int, generator: torch.Generator | None
) -> Float[Tensor, "B R {num_samples} 3"]:
    """Sample positions (B, V * height * width, num_samples, 3), evenly between planes that touch the unit sphere."""
    batch = len(rays.origins)
    origins = rays.origins[:, :, None, None, :].expand(rays.directions.shape).reshape(batch, -1, 1, 3)
    directions = rays.directions.reshape(batch, -1, 1, 3)
    offsets = (torch.arange(num_samples, device=origins.device) + 0.5) / num_samples * 2 - 1
    offsets = offsets.expand(*origins.shape[:2], num_samples)
    if generator is not None:
        jitter = torch.rand(offsets.shape, generator=generator, device=generator.device).to(offsets.device)
        offsets = offsets + (jitter - 0.5) * (2 / num_samples)
    middle = origins.norm(dim=-1, keepdim=True)
    return origins + directions * (middle + offsets[..., None])


def _ray_weights(density: Float[Tensor, "*R samples"]) -> Float[Tensor, "*R samples"]:
    """How much each sample (..., samples) contributes to its ray (NeRF, eq. 3); samples divide 2 frame radii evenly."""
    alpha = 1 - torch.exp(-density * (2 / density.shape[-1]))
    through = torch.cumprod(1 - alpha, dim=-1)
    return alpha * torch.cat([torch.ones_like(alpha[..., :1]), through[..., :-1]], dim=-1)


def _sample_picture(picture: Float[Tensor, "B C S S"], uv: Float[Tensor, "B P 2"]) -> Float[Tensor, "B C P"]:
    """Bilinear look-up of (B, C, S, S) at uv (B, P, 2); returns (B, C, P)."""
    return F.grid_sample(picture, uv[:, None], align_corners=False, padding_mode="border")[:, :, 0]


def _sample_grid(grid: Float[Tensor, "B C G G G"], points: Float[Tensor, "B P 3"]) -> Float[Tensor, "B C P"]:
    """Trilinear look-up of (B, C, Z, Y, X) at points (B, P, 3); returns (B, C, P)."""
    at = points[:, :, None, None, :]
    return F.grid_sample(grid, at, align_corners=False, padding_mode="border")[..., 0, 0]


def _unfold_voxels(
    x: Float[Tensor, "B {factor**3} G G G"], factor: int
) -> Float[Tensor, "B 1 {factor}*G {factor}*G {factor}*G"]:
    """Rearrange (B, f^3, G, G, G) to (B, 1, fG, fG, fG), the pixel shuffle of three dimensions."""
    batch, _, size, _, _ = x.shape
    x = x.reshape(batch, factor, factor, factor, size, size, size)
    return x.permute(0, 4, 1, 5, 2, 6, 3).reshape(batch, 1, factor * size, factor * size, factor * size)

"""The space in front of a picture: rays through its pixels, and bins along them.

All lengths are *frame radii*: the sphere that just fits the frame of a camera looking at the origin has radius 1. A
camera is so told by its azimuth and elevation alone, and stands ``distance`` away. Bins divide the ground evenly into
slices, each farther away from the camera than the one before: what stands upright is in one bin from top to bottom,
however steeply the camera looks down. Under cameras steeper than `STEEPEST_DEG` the slices tilt along with the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import radians, sin, tan

import torch
from jaxtyping import Float
from torch import Tensor

STEEPEST_DEG = 35.0
"""How steeply cameras look down on upright slices at most: the rays of steeper ones would hardly cross any."""


@dataclass(frozen=True)
class Frustum:
    """Geometry that all cameras of one field of view share."""

    fov_deg: float

    @property
    def distance(self) -> float:
        """From the camera to the origin."""
        return 1 / sin(radians(self.fov_deg) / 2)

    def project(self, points: Float[Tensor, "B P 3"], poses: Float[Tensor, "B 2"]) -> Float[Tensor, "B P 3"]:
        """Where points (B, P, 3) lie for cameras with ``poses`` (B, 2), azimuth and elevation in radians.

        Returns (B, P, 3) that are in [-1, 1] inside the frustum: u to the right and v down in the picture, and how much
        farther than the origin across the slices.
        """
        in_cam = points @ axes(poses).mT
        right, up, backward = in_cam.unbind(-1)
        scale = 1 / ((self.distance - backward) * tan(radians(self.fov_deg) / 2))
        return torch.stack([right * scale, -up * scale, (in_cam @ across(poses)[..., None])[..., 0]], dim=-1)

    def points(self, uv: Tensor, poses: Tensor, num_bins: int) -> Tensor:
        """Centres (..., num_bins, 3) of the bins of rays at ``uv`` (..., 2) of cameras with ``poses`` (..., 2)."""
        u, v = uv.unbind(-1)
        half = tan(radians(self.fov_deg) / 2)
        ray = torch.stack([u * half, -v * half, -torch.ones_like(u)], dim=-1)
        normal = across(poses)
        places = (torch.arange(num_bins, device=uv.device) + 0.5) / num_bins * 2 - 1
        begin = normal[..., 2] * self.distance  # where the camera is, across the slices
        length = (places - begin[..., None]) / (ray * normal).sum(-1, keepdim=True)
        in_cam = ray[..., None, :] * length[..., None]
        in_cam[..., 2] += self.distance
        return in_cam @ axes(poses)

    def unproject_depth(self, depth: Float[Tensor, "N S S"]) -> Float[Tensor, "N S S 3"]:
        """Points (N, S, S, 3) in camera axes that depth maps (N, S, S), measured along the viewing axis, show."""
        uv = pixel_uv(depth.shape[-1], depth.device) * tan(radians(self.fov_deg) / 2)
        return torch.stack([uv[..., 0] * depth, -uv[..., 1] * depth, -depth], dim=-1)


def axes(poses: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B 3 3"]:
    """The axes right, up and backward (*B, 3, 3), in rows, of cameras with azimuth and elevation (*B, 2)."""
    azimuth, elevation = poses.unbind(-1)
    ca, sa, ce, se = azimuth.cos(), azimuth.sin(), elevation.cos(), elevation.sin()
    nil = torch.zeros_like(ca)
    right = torch.stack([ca, sa, nil], dim=-1)
    up = torch.stack([-se * sa, se * ca, ce], dim=-1)
    backward = torch.stack([ce * sa, -ce * ca, se], dim=-1)
    return torch.stack([right, up, backward], dim=-2)


def across(poses: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B 3"]:
    """What is at right angles to the slices and points away from cameras, (*B, 3) in their axes."""
    steepest = radians(STEEPEST_DEG)
    tilt = poses[..., 1].clamp(-steepest, steepest)
    return torch.stack([torch.zeros_like(tilt), tilt.sin(), -tilt.cos()], dim=-1)


def pixel_uv(size_px: int, device: torch.device | None = None) -> Float[Tensor, "{size_px} {size_px} 2"]:
    """The centres (size, size, 2) of a square picture's pixels, u to the right and v down, in [-1, 1]."""
    axis = (torch.arange(size_px, device=device) + 0.5) / size_px * 2 - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([u, v], dim=-1)

"""What the coarse network learns from: pictures of an object, the space it fills, and points of its surface."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import cos, radians, sin, tan

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.pictures import recoloured, spotted, to_tensor
from mv3d.cameras import Camera
from mv3d.model.frustum import Frustum, axes, pixel_uv
from mv3d.pack import Pack

_COLOUR_VIEWS = 3
_SEEN = 0.5  # alpha


@dataclass(frozen=True, eq=False)
class Scene:
    """One object. Lengths are frame radii; the world is turned so that the first picture is at azimuth 0."""

    rgba: Tensor
    """(N, 4, S, S) of its N pictures, straight."""
    shown: Tensor
    """(N, 4, S, S), the same, some of them painted with spots: what the network has to see through."""
    poses: Tensor
    """(N, 2), azimuth and elevation of their cameras in radians."""
    depth: Tensor
    """(N, S, S) along their viewing axes; 0 where nothing is."""
    turn_rad: float
    """From the world to that of ``filled``: its azimuths are larger by this."""
    filled: Tensor
    """(1, D, D, D) in [0, 1], (Z, Y, X)."""
    surface: Tensor
    """(M, 3), visible points of the surface."""
    colour: Tensor
    """(3, M), of these."""

    def to(self, device: torch.device | str) -> Scene:
        """The same with all tensors on a device."""
        tensors = {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **{name: value.to(device) for name, value in tensors.items()})

    def occupancy(self, points: Tensor) -> Tensor:
        """How full space is at points (P, 3); (P,) in [0, 1]."""
        c, s = cos(self.turn_rad), sin(self.turn_rad)
        x, y, z = points.unbind(-1)
        turned = torch.stack([x * c - y * s, x * s + y * c, z], dim=-1)
        return F.grid_sample(self.filled[None], turned[None, :, None, None], align_corners=False)[0, 0, :, 0, 0]


def draw_scene(pack: Pack, orbit: int, num_pictures: int, num_colours: int, generator: torch.Generator) -> Scene:
    """An object as seen by ``num_pictures`` of its views, recoloured, mirrored and painted with spots by chance."""
    views = pack.frames.shape[1]
    order = torch.randperm(views, generator=generator).tolist()
    chosen = order[:num_pictures] + order[-_COLOUR_VIEWS:]
    cameras = pack.cameras_from(orbit, chosen[0])
    cameras = [cameras[(view - chosen[0]) % views] for view in chosen]
    rgba = recoloured(to_tensor(pack.frames[orbit][chosen]), generator)
    depth = torch.from_numpy(pack.depth[orbit][chosen].astype(np.float32)) / frame_radius(cameras[0])
    filled = _thickened(torch.from_numpy(pack.filled(orbit))[None].float())
    poses = torch.tensor([[radians(c.azimuth_deg), radians(c.elevation_deg)] for c in cameras], dtype=torch.float32)
    turn_rad = radians(pack.cameras(orbit)[chosen[0]].azimuth_deg)
    if torch.rand((), generator=generator) < 0.5:  # mirrored: x and azimuths change their sign
        rgba, depth, filled = rgba.flip(-1), depth.flip(-1), filled.flip(-1)
        poses, turn_rad = poses * torch.tensor([-1.0, 1.0]), -turn_rad
    seen = slice(num_pictures, None)
    surface, colour = _surface(rgba[seen], depth[seen], poses[seen], cameras[0].fov_deg, num_colours, generator)
    near = slice(0, num_pictures)
    return Scene(
        rgba[near], spotted(rgba[near], generator), poses[near], depth[near], turn_rad, filled, surface, colour
    )


def _thickened(filled: Tensor) -> Tensor:
    """The grid with a cell more on every side, so that no board is thinner than a ray's bin, which none could hit."""
    for axis in (-1, -2, -3):  # the maximum of neighbours along each axis in turn, six times faster than max_pool3d
        last = filled.shape[axis] - 1
        grown = filled.clone()
        for here, beside in ((0, 1), (1, 0)):
            torch.maximum(
                grown.narrow(axis, here, last), filled.narrow(axis, beside, last), out=grown.narrow(axis, here, last)
            )
        filled = grown
    return filled


def frame_radius(camera: Camera) -> float:
    """How many world units are one frame radius."""
    return camera.radius * sin(radians(camera.fov_deg) / 2)


def _surface(
    rgba: Tensor, depth: Tensor, poses: Tensor, fov_deg: float, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random visible points (count, 3) of views (V, ...) and their colours (3, count)."""
    visible = ((depth > 0) & (rgba[:, 3] > _SEEN)).nonzero()
    if not len(visible):
        return torch.zeros(count, 3), torch.full((3, count), torch.nan)
    view, row, column = visible[torch.randint(len(visible), (count,), generator=generator)].unbind(-1)
    uv = pixel_uv(depth.shape[-1])[row, column]
    z = depth[view, row, column]
    half = tan(radians(fov_deg) / 2)
    in_cam = torch.stack([uv[:, 0] * half * z, -uv[:, 1] * half * z, Frustum(fov_deg).distance - z], dim=-1)
    return (in_cam[:, None] @ axes(poses[view]))[:, 0], rgba[view, :3, row, column].T

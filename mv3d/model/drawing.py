"""Views drawn from the coarse stage's surface: crisp, in the picture's own pixels where it shows the surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Float, Float32, Float64, Int64
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from mv3d.cameras import Camera
from mv3d.mesh import Mesh
from mv3d.model.alpha import premultiplied
from mv3d.model.conditioning import VIEW_CHANNELS
from mv3d.model.posed_picture import PosedPicture

_SAMPLES = 2  # rays to a pixel, along each side
_DEPTH_PX = 512  # of the picture's own depth map
_SLACK = 0.03  # frame radii: how far behind the nearest surface a point still counts as seen
_GRAZING, _FACING = 0.15, 0.4  # cosines from which, and up to which, the picture's own pixels fade in
_PREFERENCE = 4  # power of how well a picture shows a place beside the one that shows it best
_ONE_SURFACE = 0.02  # frame radii between the hits of one pixel
_POINTS_AT_ONCE = 1 << 17
_LEAST_ALPHA = 1e-4


class Appearance(NamedTuple):
    """What P points look like, and how much of it is looked up in the picture."""

    rgb: Float[Tensor, "B 3 P"]
    front: Float[Tensor, "B P"]
    """The share of the picture's pixel in front."""
    elsewhere: Float[Tensor, "B P"]
    """The share of a pixel elsewhere in it."""


class Coloured(Protocol):
    """A coarse stage that knows the colours of points."""

    def appearance(self, field: Any, points: Float[Tensor, "1 P 3"]) -> Appearance:
        """What points (1, P, 3), in frame radii, look like."""
        ...


@dataclass(frozen=True, eq=False)
class _Hits:
    """The surface at the P pixels of a view that show any of it."""

    row: Int64[np.ndarray, " P"]
    column: Int64[np.ndarray, " P"]
    points: Float64[np.ndarray, "P 3"]
    normals: Float64[np.ndarray, "P 3"]
    alpha: Float32[np.ndarray, "S S"]
    """The share of each pixel's rays that hit."""


class SurfaceCaster:
    """A mesh ready to be looked at; lengths are the mesh's."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._normals = mesh.vertex_normals()
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(mesh.vertices[mesh.faces], dtype=np.float32))

    def depth(self, camera: Camera) -> Float32[np.ndarray, "H W"]:
        """Depth (H, W) along the viewing axis at the pixels' centres; infinite where nothing is."""
        found, _ = self._cast(camera, 1)
        return np.where(found["primID"] >= 0, found["tfar"], np.inf).reshape(camera.height_px, camera.width_px)

    def look(self, camera: Camera) -> _Hits:
        """What a camera with square pictures sees."""
        size = camera.width_px
        found, rays = self._cast(camera, _SAMPLES)
        # (rows, samples down, columns, samples across) -> a pixel's rays last
        order = np.arange(len(rays)).reshape(size, _SAMPLES, size, _SAMPLES).transpose(0, 2, 1, 3)
        order = order.reshape(size, size, _SAMPLES**2)
        hit = found["primID"][order] >= 0
        row, column = np.nonzero(hit.any(axis=-1))
        near, hit = order[row, column], hit[row, column]
        depth = np.where(hit, found["tfar"][near], np.inf)
        nearest = depth.argmin(axis=-1)[:, None]
        # The pixel's centre is the mean of its rays, if these hit one and the same surface.
        weight = (depth < np.take_along_axis(depth, nearest, axis=-1) + _ONE_SURFACE)[..., None]
        middle = (rays[near] * np.where(weight, depth[..., None], 0)).sum(axis=1) / weight.sum(axis=1)
        ray = np.take_along_axis(near, nearest, axis=-1)[:, 0]
        face, u, v = (found[name][ray] for name in ("primID", "u", "v"))
        weights = np.stack([1 - u - v, u, v], axis=1)[:, :, None]
        normals = (self._normals[self.mesh.faces[face]] * weights).sum(axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        alpha = np.zeros((size, size), dtype=np.float32)
        alpha[row, column] = hit.mean(axis=-1)
        return _Hits(row, column, camera.position + middle, normals, alpha)

    def _cast(self, camera: Camera, samples: int) -> tuple[dict[str, NDArray], Float32[np.ndarray, "R 3"]]:
        """The first hits of samples^2 rays a pixel, row by row, and the rays (R, 3), 1 long along the viewing axis."""
        columns, rows = camera.sample_rays(samples)
        rays = (rows[:, None] + columns[None, :]).reshape(-1, 3).astype(np.float32)
        origins = np.tile(camera.position.astype(np.float32), (len(rays), 1))
        return self._scene.run(origins, rays, query="INTERSECT", output=1), rays


@torch.no_grad()
def draw_views(
    coloured: Coloured,
    field: Any,
    mesh: Mesh,
    pictures: Sequence[PosedPicture],
    cameras: Sequence[Camera],
    size_px: int,
    radius: float | None = None,
) -> Float[Tensor, "{len(cameras)} 6 {size_px} {size_px}"]:
    """Draw a surface from every camera, in pictures' pixels where they show it and the field's colours elsewhere.

    A pixel of a picture counts where the line to the picture's camera is free and the surface faces it.

    Args:
        coloured: the coarse stage.
        field: its field of the object.
        mesh: the field's surface, in frame radii.
        pictures: of it.
        cameras: of the views.
        size_px: width and height of the views.
        radius: how many of the cameras' world units one frame radius is; if None, each camera's own frame's.

    Returns:
        (V, 6, size_px, size_px) in [-1, 1]: RGB on white, alpha, and how much of the colour are pictures' pixels in
        front and pixels elsewhere in them.
    """
    device = pictures[0].rgba.device
    caster = SurfaceCaster(mesh)
    paints = [_Paint(picture, caster) for picture in pictures]
    views = []
    for camera in cameras:
        hits = caster.look(in_frame_radii(camera, size_px, radius))
        points = torch.from_numpy(hits.points).float().to(device)
        if len(points):
            parts = [coloured.appearance(field, chunk[None]) for chunk in points.split(_POINTS_AT_ONCE)]
            rgb, front, elsewhere = (torch.cat(part, dim=-1)[0] for part in zip(*parts, strict=True))
            own, shown = _painted(paints, hits)
            rgb = rgb + (own - rgb) * shown
            front, elsewhere = shown + (1 - shown) * front, (1 - shown) * elsewhere
            found = torch.cat([rgb, front[None], elsewhere[None]])
        else:
            found = torch.zeros(5, 0, device=device)
        view = torch.zeros(VIEW_CHANNELS, size_px, size_px, device=device)
        alpha = torch.from_numpy(hits.alpha).to(device)
        row, column = (torch.from_numpy(at).to(device) for at in (hits.row, hits.column))
        view[:3] = 1
        covered = alpha[row, column]
        view[:3, row, column] = 1 + (found[:3] - 1) * covered
        view[4:, row, column] = found[3:] * covered
        view[3] = alpha
        views.append(view)
    return torch.stack(views).clamp(0, 1) * 2 - 1


class _Paint:
    """A picture's pixels, for the places of a surface that it shows."""

    def __init__(self, picture: PosedPicture, caster: SurfaceCaster) -> None:
        self._camera = in_frame_radii(picture.camera(picture.size_px), picture.size_px)
        depth = caster.depth(in_frame_radii(picture.camera(_DEPTH_PX), _DEPTH_PX))
        self._nearest = ndimage.minimum_filter(depth, size=3)
        rgba = picture.rgba[None]
        self._colours = torch.cat([filled_colours(rgba), rgba[:, 3:]], dim=1)

    def look(self, hits: _Hits) -> tuple[Tensor, Tensor]:
        """Colours (3, P) at points, and how well they are shown, (P,) in [0, 1]."""
        pixels, depth = self._camera.project(hits.points)
        at_uv = pixels / (self._camera.width_px / 2) - 1
        towards = self._camera.position - hits.points
        cosine = (hits.normals * towards).sum(axis=1) / np.linalg.norm(towards, axis=1)
        at = np.clip(((at_uv + 1) * (_DEPTH_PX / 2)).astype(int), 0, _DEPTH_PX - 1)
        free = depth < self._nearest[at[:, 1], at[:, 0]] + _SLACK
        facing = free * np.clip((cosine - _GRAZING) / (_FACING - _GRAZING), 0, 1)
        uv, shown = (torch.from_numpy(x).float().to(self._colours.device) for x in (at_uv, facing))
        own = F.grid_sample(self._colours, uv[None, None], align_corners=False, padding_mode="border")[0, :, 0]
        return own[:3], shown * ((own[3] - 0.5) * 2).clamp(0, 1)


def _painted(paints: Sequence[_Paint], hits: _Hits) -> tuple[Tensor, Tensor]:
    """Colours (3, P) that pictures show at points, those that show them best before others, and how well, (P,)."""
    colours, shown = (torch.stack(part) for part in zip(*(paint.look(hits) for paint in paints), strict=True))
    best = shown.amax(dim=0)
    weight = (shown / best.clamp(min=1e-6)) ** _PREFERENCE
    own = (colours * weight[:, None]).sum(dim=0) / weight.sum(dim=0).clamp(min=1e-6)
    return own, best


def in_frame_radii(camera: Camera, size_px: int, radius: float | None = None) -> Camera:
    """The camera with a picture of another size, in a world measured in frame radii.

    ``radius`` is how many units of the camera's world one of them is; if None, the camera's own frame's.
    """
    small = camera.resized(size_px, size_px)
    matrix = np.array(small.world_from_cam)
    matrix[:3, 3] /= frame_radius(camera) if radius is None else radius
    return Camera(matrix, small.focal_px, size_px, size_px, small.cx_px, small.cy_px)


def frame_radius(camera: Camera) -> float:
    """How many world units one frame radius is (`mv3d.model.frustum`)."""
    return camera.radius * float(np.sin(np.radians(camera.fov_deg / 2)))


def filled_colours(pictures: Float[Tensor, "N 4 S S"]) -> Float[Tensor, "N 3 S S"]:
    """The colours (N, 3, S, S) of pictures (N, 4, S, S), spread over the background: a look-up at an edge touches it.

    By push and pull (Gortler et al. 1996, section 3.5): what a level lacks it has from the next coarser one.
    """
    levels = [premultiplied(pictures)]
    while levels[-1].shape[-1] > 1:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True))
    below = levels[-1][:, :3] / levels[-1][:, 3:].clamp(min=_LEAST_ALPHA)
    for level in reversed(levels[:-1]):
        below = F.interpolate(below, level.shape[-2:], mode="bilinear", align_corners=False)
        below = level[:, :3] + (1 - level[:, 3:]) * below
    return below

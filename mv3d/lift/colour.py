"""The surface's colours, blended from the views that see it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from mv3d.cameras import Camera
from mv3d.lift.raster import rasterize, render_depth
from mv3d.lift.views import SilhouetteViews
from mv3d.mesh import Mesh, Texture
from mv3d.orbit import Orbit
from mv3d.pixels import to_uint8

Array = NDArray[np.float64]

_SHARPNESS = 4  # power of the cosine between the view and the surface's normal
_GRAZING = 0.2  # cosine below which a view does not see enough
_INPUT_TRUST = 4.0  # the picture all other views were made from is the best witness
_NEIGHBOURS = 8  # seen texels that lend an unseen one their colour


def bake_texture(
    mesh: Mesh, corner_uv: Array, size_px: tuple[int, int], orbit: Orbit, views: SilhouetteViews, slack: float
) -> Texture:
    """Paint the texture of ``size_px`` (width, height) from the orbit's frames.

    ``slack`` is how far (world units) the surface may be off without hiding itself.
    """
    width_px, height_px = size_px
    corners_px = np.stack([corner_uv[..., 0] * width_px, (1 - corner_uv[..., 1]) * height_px], axis=-1)
    texels = rasterize(corners_px, np.ones(mesh.faces.shape), width_px, height_px)
    corners = mesh.faces[texels.faces]
    weights = texels.barycentric[:, :, None]
    points = (mesh.vertices[corners] * weights).sum(axis=1)
    normals = (mesh.vertex_normals()[corners] * weights).sum(axis=1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    colours = _blend(mesh, points, normals, orbit, views, slack)
    picture = np.zeros((height_px, width_px, 3), dtype=np.float32)
    picture[texels.rows, texels.columns] = colours
    empty = np.ones((height_px, width_px), dtype=bool)
    empty[texels.rows, texels.columns] = False
    # Between the charts goes the nearest chart's colour, so that no filter mixes in black.
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return Texture(to_uint8(picture[tuple(nearest)]), corner_uv)


def _blend(
    mesh: Mesh, points: Array, normals: Array, orbit: Orbit, views: SilhouetteViews, slack: float
) -> NDArray[np.float32]:
    """Colours (P, 3) of surface points: views weigh more that look straight at them, away from an outline."""
    total = np.zeros((len(points), 3))
    total_weight = np.zeros(len(points))
    for view, camera in enumerate(orbit.cameras):
        towards = camera.position - points
        towards /= np.linalg.norm(towards, axis=1, keepdims=True)
        cosine = (normals * towards).sum(axis=1)
        facing = np.flatnonzero(cosine > _GRAZING)
        seen = facing[_is_visible(mesh, camera, points[facing], cosine[facing], slack)]
        pixels, _ = camera.project(points[seen])
        colours = _sample(orbit.frames[view], pixels)
        inner_px = _sample(views.inner_px(view)[..., None], pixels)[:, 0]
        weight = cosine[seen] ** _SHARPNESS * np.clip(inner_px / 2, 0.01, 1) * colours[:, 3]
        weight *= _INPUT_TRUST if view == orbit.facts.input_index else 1.0
        total[seen] += weight[:, None] * colours[:, :3]
        total_weight[seen] += weight
    known = total_weight > 0
    out = total / np.maximum(total_weight, 1e-12)[:, None]
    if known.any() and not known.all():
        distance, index = cKDTree(points[known]).query(points[~known], k=min(_NEIGHBOURS, int(known.sum())))
        closeness = 1 / np.maximum(distance.reshape(len(index), -1), 1e-6)
        lent = out[known][index.reshape(len(index), -1)]
        out[~known] = (lent * closeness[..., None]).sum(axis=1) / closeness.sum(axis=1, keepdims=True)
    return out.astype(np.float32)


def _is_visible(mesh: Mesh, camera: Camera, points: Array, cosine: Array, slack: float) -> NDArray[np.bool_]:
    """Whether nothing lies in front of surface points; next to something nearer does not count as visible."""
    depth_picture = ndimage.minimum_filter(render_depth(mesh, camera), size=3)
    pixels, depth = camera.project(points)
    columns, rows = np.floor(pixels).astype(int).T
    on_picture = (columns >= 0) & (columns < camera.width_px) & (rows >= 0) & (rows < camera.height_px) & (depth > 0)
    front = depth_picture[rows.clip(0, camera.height_px - 1), columns.clip(0, camera.width_px - 1)]
    slope = np.sqrt(1 - np.minimum(cosine, 1) ** 2) / cosine
    return on_picture & (depth < front + slack + 2 * slope * depth / camera.focal_px)


def _sample(picture: NDArray[np.float32], pixels: Array) -> NDArray[np.float32]:
    """Look a picture (H, W, C) up bilinearly at pixel positions (P, 2), (P, C); RGBA comes back with straight alpha."""
    is_rgba = picture.shape[-1] == 4
    if is_rgba:
        picture = np.concatenate([picture[..., :3] * picture[..., 3:], picture[..., 3:]], axis=-1)
    at = pixels.T[::-1] - 0.5
    channels = [ndimage.map_coordinates(picture[..., c], at, order=1, mode="nearest") for c in range(picture.shape[-1])]
    out = np.stack(channels, axis=-1)
    if is_rgba:
        out[:, :3] /= np.maximum(out[:, 3:], 1e-6)
    return out

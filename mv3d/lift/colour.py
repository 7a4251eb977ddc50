"""The surface's colours, blended from the views that see it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from mv3d.cameras import Camera
from mv3d.lift.delight import without_light
from mv3d.lift.raster import render_depth
from mv3d.lift.texels import Texels
from mv3d.lift.views import SilhouetteViews
from mv3d.mesh import Mesh
from mv3d.orbit import Orbit
from mv3d.pixels import to_uint8

Array = NDArray[np.float64]

_SHARPNESS = 4  # power of the cosine between the view and the surface's normal
_GRAZING, _FACING = 0.15, 0.4  # cosines from which, and up to which, a view counts, and the picture in place of views
_FROM_OUTLINE_PX = 2.0  # within which views are trusted less
_PICTURE_DEPTH_PX = 512  # of the depth map by which the picture's pixels are told from hidden places
_NEIGHBOURS = 8  # seen texels that lend an unseen one their colour
_MOST_LENDERS = 50_000  # of all seen texels, evenly chosen


def bake_texture(
    mesh: Mesh,
    texels: Texels,
    orbit: Orbit,
    views: SilhouetteViews,
    slack: float,
    *,
    delight: bool = False,
) -> NDArray[np.uint8]:
    """Paint the texels of a texture, (S, S, 3), from the orbit's frames, and from its picture where that is there.

    Views are blended; the picture, which is sharper and true, stands before them where it sees the surface.
    ``slack`` is how far (world units) the surface may be off without hiding itself. With ``delight`` the light is taken
    out again (`mv3d.lift.delight`).
    """
    points = texels.interpolate(mesh.vertices[mesh.faces])
    normals = texels.unit(mesh.vertex_normals()[mesh.faces])
    sight = _Sight(mesh, points, normals, slack)
    total = np.zeros((len(points), 3))
    total_weight = np.zeros(len(points))
    for view, camera in enumerate(orbit.cameras):
        seen, colours, cosine = sight.look(orbit.frames[view], camera, views.inner_px(view))
        weight = cosine**_SHARPNESS * colours[:, 3]
        total[seen] += weight[:, None] * colours[:, :3]
        total_weight[seen] += weight
    colours = total / np.maximum(total_weight, 1e-12)[:, None]
    known = total_weight > 0
    if orbit.picture is not None and orbit.facts.input_index is not None:
        given = orbit.facts.input_index
        seen, own, cosine = sight.look(orbit.picture, orbit.cameras[given], views.inner_px(given))
        share = np.clip((cosine - _GRAZING) / (_FACING - _GRAZING), 0, 1) * np.clip(own[:, 3], 0, 1)
        share = np.where(known[seen], share, own[:, 3] > 0)
        colours[seen] += share[:, None] * (own[:, :3] - colours[seen])
        known[seen] |= share > 0
    if delight:
        colours = without_light(colours, normals, known)
    _lend(colours, known, points)
    return to_uint8(texels.picture(colours))


class _Sight:
    """Points of a surface, (P, 3), and who sees them."""

    def __init__(self, mesh: Mesh, points: Array, normals: Array, slack: float) -> None:
        self._mesh, self._points, self._normals, self._slack = mesh, points, normals, slack
        self._height = (normals * points).sum(axis=1)
        self._square = (points * points).sum(axis=1)

    def look(
        self, frame: NDArray[np.float32], camera: Camera, inner_px: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], Array]:
        """Which points a camera sees, the colours (Q, 4) it sees there, and cosines to the surface's normal (Q,).

        ``frame`` is square if its size is not the camera's. A colour's fourth number is how far to trust it: it is
        small at the outline, which lies ``inner_px`` (of the camera's pixels) away.
        """
        # Normals times the way to the camera, and its length, each by one product with a matrix: there are many points.
        above = self._normals @ camera.position - self._height
        away = np.sqrt(self._square - self._points @ (2 * camera.position) + camera.position @ camera.position)
        facing = np.flatnonzero(above > _GRAZING * away)
        cosine = above[facing] / away[facing]
        depth_px = camera.height_px if len(frame) == camera.height_px else _PICTURE_DEPTH_PX
        pixels, depth = camera.project(self._points[facing])
        front = self._front(camera.resized(depth_px, depth_px), pixels * (depth_px / camera.height_px))
        slope = np.sqrt(1 - np.minimum(cosine, 1) ** 2) / cosine
        pixel = 2 * depth / (camera.focal_px * (depth_px / camera.height_px))
        visible = (depth > 0) & (depth < front + self._slack + slope * pixel)
        seen, pixels, cosine = facing[visible], pixels[visible], cosine[visible]
        colours = _sample(frame, pixels * (len(frame) / camera.height_px))
        inner = _sample(inner_px[..., None], pixels)[:, 0]
        colours[:, 3] *= np.clip(inner / _FROM_OUTLINE_PX, 0.01, 1)
        return seen, colours, cosine

    def _front(self, camera: Camera, pixels: Array) -> Array:
        """The depth (P,) of what is in front at pixel positions (P, 2), or right beside; all is hidden beyond it."""
        nearest = ndimage.minimum_filter(render_depth(self._mesh, camera), size=3)
        columns, rows = np.floor(pixels).astype(int).T
        on_picture = (columns >= 0) & (columns < camera.width_px) & (rows >= 0) & (rows < camera.height_px)
        front = nearest[rows.clip(0, camera.height_px - 1), columns.clip(0, camera.width_px - 1)]
        return np.where(on_picture, front, -np.inf)


def _lend(colours: Array, known: NDArray[np.bool_], points: Array) -> None:
    """Give points (P, 3) of unknown colour, in place, that of the nearest known ones."""
    if known.any() and not known.all():
        lenders = np.flatnonzero(known)
        lenders = lenders[:: -(-len(lenders) // _MOST_LENDERS)]
        distance, index = cKDTree(points[lenders]).query(points[~known], k=min(_NEIGHBOURS, len(lenders)))
        closeness = 1 / np.maximum(distance.reshape(len(index), -1), 1e-6)
        lent = colours[lenders][index.reshape(len(index), -1)]
        colours[~known] = (lent * closeness[..., None]).sum(axis=1) / closeness.sum(axis=1, keepdims=True)


def _sample(picture: NDArray[np.float32], pixels: Array) -> NDArray[np.float32]:
    """Look a picture (H, W, C) up bilinearly at pixel positions (P, 2), (P, C); RGBA comes back with straight alpha."""
    is_rgba = picture.shape[-1] == 4
    if is_rgba:
        picture = np.concatenate([picture[..., :3] * picture[..., 3:], picture[..., 3:]], axis=-1)
    height, width, channels = picture.shape
    at = np.clip(pixels.astype(np.float32) - 0.5, 0, np.array([width - 1, height - 1], dtype=np.float32))
    left, upper = np.minimum(at.astype(np.int64), [max(width - 2, 0), max(height - 2, 0)]).T
    right, down = (at[:, 0] - left)[:, None].astype(np.float32), (at[:, 1] - upper)[:, None].astype(np.float32)
    flat, first = picture.reshape(-1, channels), upper * width + left
    to_right, below = min(1, width - 1), width * min(1, height - 1)

    def between(row: NDArray[np.int64]) -> NDArray[np.float32]:
        begin, end = np.take(flat, row, axis=0), np.take(flat, row + to_right, axis=0)
        end -= begin
        end *= right
        begin += end
        return begin

    out, lower = between(first), between(first + below)
    lower -= out
    lower *= down
    out += lower
    if is_rgba:
        out[:, :3] /= np.maximum(out[:, 3:], 1e-6)
    return out

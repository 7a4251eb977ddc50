"""Where the object is in each view, as signed distances to its outline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from mv3d.errors import Mv3dError
from mv3d.orbit import Frames, Orbit

_OPAQUE = 0.99  # frames whose every pixel is at least this opaque carry no silhouette
_PLAIN = 0.06  # how far a plain background may stray from its own colour (largest channel, in [0, 1])
_SAME, _OTHER = 0.03, 0.09  # colour distances at which a pixel is surely background, surely object
_SMALLEST_PX = 4  # fewer object pixels than this are specks, not an object


def find_alpha(orbit: Orbit) -> NDArray[np.float32]:
    """Find how much of each pixel the object covers, (N, height, width) in [0, 1].

    The frames' own alpha where they have any; otherwise the distance in colour from the plain background.

    Raises:
        Mv3dError: if opaque frames have no plain background, or the object is missing from one or every view.
    """
    alpha = orbit.frames[..., 3]
    if alpha.min() >= _OPAQUE:
        alpha = np.stack([_alpha_on_plain(frame[..., :3], k) for k, frame in enumerate(orbit.frames)])
    seen = (alpha >= 0.5).sum(axis=(1, 2)) >= _SMALLEST_PX
    if not seen.any():
        raise Mv3dError("no view shows an object: every frame is transparent or plain background")
    if not seen.all():
        raise Mv3dError(f"view {int(np.argmin(seen))} shows no object; leave empty views out")
    return alpha


def outline_distance(alpha: NDArray[np.float32], margin_px: int) -> NDArray[np.float32]:
    """Signed distance in pixels to the line where ``alpha`` is one half, positive on the object.

    Returns values at pixel centres of the picture enlarged by ``margin_px`` on each side: there, an object that touches
    the picture's border goes on.
    """
    padded = np.pad(alpha, margin_px, mode="edge")
    inside = padded >= 0.5
    outline = [np.concatenate([line, (line[1:] + line[:-1]) / 2]) for line in find_contours(padded, 0.5)]
    if not outline:  # the object fills the whole picture
        return np.full(padded.shape, float(max(padded.shape)), dtype=np.float32)
    tree = cKDTree(np.concatenate(outline))
    distance, _ = tree.query(np.argwhere(np.ones_like(inside)))
    return np.where(inside, 1, -1).astype(np.float32) * distance.reshape(padded.shape).astype(np.float32)


def _alpha_on_plain(rgb: Frames, view: int) -> NDArray[np.float32]:
    border = np.concatenate([rgb[0], rgb[-1], rgb[1:-1, 0], rgb[1:-1, -1]])
    background = np.median(border, axis=0)
    if np.median(np.abs(border - background).max(axis=-1)) > _PLAIN:
        raise Mv3dError(
            f"view {view} has neither transparency nor a plain background: cut the object out first (RGBA frames)"
        )
    distance = np.abs(rgb - background).max(axis=-1)
    alpha = np.clip((distance - _SAME) / (_OTHER - _SAME), 0, 1)
    return ndimage.median_filter(alpha, size=3).astype(np.float32)

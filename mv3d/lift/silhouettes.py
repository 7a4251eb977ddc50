"""Where the object is in each view, as signed distances to its outline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from mv3d.errors import Mv3dError
from mv3d.matte import NotPlainError, matte_plain
from mv3d.orbit import Orbit
from mv3d.pixels import Frames

_OPAQUE = 0.99  # a frame whose every pixel is at least this opaque carries no silhouette
_SMALLEST_PX = 4  # fewer object pixels than this are specks, not an object
_SHARP_PX = 300  # views up to this large have edges one pixel wide, being rendered or decoded at that size
_EXACT_PX = 8.0  # from the outline; farther away, half a pixel tells nothing, and exactness costs most
_FULL = 0.95  # of a picture: an object that covers more of it has no outline to tell its shape by


def cut_out_views(orbit: Orbit) -> Orbit:
    """The orbit with the object cut out in every frame.

    Frames that have any alpha stay as they are; of the others, the plain background is made transparent. Models
    without alpha give one frame of the first kind, the picture, and the rest of the second.

    Raises:
        Mv3dError: if an opaque frame has no plain background, the object is missing from one or every view, or it
            fills most of the pictures whole, so that the silhouettes would be the pictures' own squares.
    """
    frames = np.stack([_cut_out(frame, k) for k, frame in enumerate(orbit.frames)])
    covered = frames[..., 3] >= 0.5
    seen = covered.sum(axis=(1, 2)) >= _SMALLEST_PX
    if not seen.any():
        raise Mv3dError("no view shows an object: every frame is transparent or plain background")
    if not seen.all():
        raise Mv3dError(f"view {int(np.argmin(seen))} shows no object; leave empty views out")
    full = covered.mean(axis=(1, 2)) > _FULL
    if full.sum() > len(full) / 2:
        raise Mv3dError(
            f"the object fills the whole picture in {full.sum()} of {len(full)} views (the first is view "
            f"{int(np.argmax(full))}), which would lift to a box: cut it out first (RGBA frames), with room around it"
        )
    return replace(orbit, frames=frames)


def outline_distance(alpha: NDArray[np.float32], margin_px: int) -> NDArray[np.float32]:
    """Signed distance in pixels to the line where ``alpha`` is one half, positive on the object, exact near it.

    Returns values at pixel centres of the picture enlarged by ``margin_px`` on each side: there, an object that touches
    the picture's border goes on.
    """
    padded = np.pad(alpha, margin_px, mode="edge")
    inside = padded >= 0.5
    outline = [np.concatenate([line, (line[1:] + line[:-1]) / 2]) for line in find_contours(padded, 0.5)]
    if not outline:  # the object fills the whole picture
        return np.full(padded.shape, float(max(padded.shape)), dtype=np.float32)
    distance = np.where(inside, *(ndimage.distance_transform_edt(side) for side in (inside, ~inside))) - 0.5
    near = np.argwhere(distance < _EXACT_PX)
    distance[tuple(near.T)] = cKDTree(np.concatenate(outline)).query(near)[0]
    return np.where(inside, 1, -1).astype(np.float32) * distance.astype(np.float32)


def _cut_out(frame: Frames, view: int) -> Frames:
    if frame[..., 3].min() < _OPAQUE:
        return frame
    try:
        return matte_plain(frame[..., :3], max(1, round(max(frame.shape[:2]) / _SHARP_PX)))
    except NotPlainError as error:
        raise Mv3dError(
            f"view {view} has neither transparency nor a plain background ({error}): "
            "cut the object out first (RGBA frames)"
        ) from error

"""Removing a picture's background: a plain one by its colour and without shadows, any other by U²-Net, or by a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mv3d.errors import Mv3dError
from mv3d.pixels import Frames

Mask = NDArray[np.bool_]

_PLAIN_TOLERANCE = 0.08  # largest difference of a channel to the background's colour
_PLAIN_SHARE = 0.8  # of the border that must have that colour; the rest may be an object cut by the frame
_HOLE_SHARE = 5e-4  # of the picture, from which an enclosed patch of the background's colour is a hole
_SPECK_SHARE = 0.005  # of the largest part, below which a separate part is dust
_HAZE = 0.05  # alpha below which there is nothing, and above one minus which there is no background
_DARKEST_SHADOW = 0.25  # of the background's light
_SHADOW_SHARE = 0.02  # of what is left, from which it is worth asking whether it is a shadow


class NotPlainError(Mv3dError):
    """The border of a picture has not one colour."""


def matte_plain(rgb: Frames, edge_px: int | None = None) -> Frames:
    """Make what has the border's colour transparent, (H, W, 3) to (H, W, 4).

    ``edge_px`` is half the width over which edges are blurred; if None, a camera's.

    What is connected with the border goes, and so do enclosed patches of exactly that colour: the hole in a handle. (On
    a white background that may be a white label; but this is invisible where cut-outs are shown on white.)

    Raises:
        NotPlainError: if less than 80 % of the border has one colour.
    """
    edge_px = edge_px or _edge_px(rgb)
    ring = np.ones(rgb.shape[:2], dtype=bool)
    ring[edge_px:-edge_px, edge_px:-edge_px] = False
    background = np.median(rgb[ring], axis=0)
    difference = np.abs(rgb - background).max(axis=-1)
    alike = difference < _PLAIN_TOLERANCE
    share = alike[ring].mean()
    if share < _PLAIN_SHARE:
        raise NotPlainError(f"only {share:.0%} of the border has one colour, {_PLAIN_SHARE:.0%} is needed")
    usual_difference = np.quantile(difference[ring & alike], 0.75) + 1 / 255
    inside = _without_specks(~(_reaching_the_frame(alike) | _holes(alike, difference, usual_difference)))
    return _with_soft_edge(rgb, inside, background, edge_px)


def matte_without_shadow(rgb: Frames) -> Frames:
    """`matte_plain` without the shadow that the object throws on the background; raises as it does.

    A shadow is what has the background's hue, is darker, fades into it, and is no part of the salient object by U²-Net.
    """
    freed = matte_plain(rgb)
    inside = freed[..., 3] > 0.5
    background = np.median(rgb[freed[..., 3] == 0], axis=0)
    light = rgb @ background / max(float(background @ background), 1e-6)
    of_its_hue = np.abs(rgb - light[..., None] * background).max(axis=-1) < _PLAIN_TOLERANCE / 2
    maybe = inside & of_its_hue & (light > _DARKEST_SHADOW) & (light < 1)
    if maybe.sum() < _SHADOW_SHARE * inside.sum():
        return freed
    shadow = _fading(maybe & (_saliency(rgb) < 0.5), ~inside, np.abs(rgb - background).max(axis=-1))
    kept = _without_specks(ndimage.binary_opening(inside & ~shadow, iterations=_edge_px(rgb) // 2) & inside & ~shadow)
    return _clean(rgb, freed[..., 3] * kept, sure=ndimage.binary_erosion(kept), reach_px=_edge_px(rgb))


def matte_u2net(rgb: Frames) -> Frames:
    """Find the salient object with U²-Net (Qin et al. 2020), (H, W, 3) to (H, W, 4)."""
    alpha = _saliency(rgb)
    edge_px = _edge_px(rgb)
    alpha = alpha * ndimage.binary_dilation(_without_specks(alpha > 0.5), iterations=2 * edge_px)
    alpha[alpha < _HAZE] = 0
    return _clean(rgb, alpha, sure=alpha > 1 - _HAZE, reach_px=4 * edge_px)


def _saliency(rgb: Frames) -> NDArray[np.float32]:
    import torch

    from mv3d.model.saliency import find_salient

    return find_salient(torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)).numpy()


def matte_mask(rgb: Frames, mask: NDArray[np.floating]) -> Frames:
    """Cut out what a mask (H, W) in [0, 1] covers, (H, W, 3) to (H, W, 4).

    Pixels that it covers in part get the colour of the object beside them.
    """
    return _clean(rgb, mask, sure=mask > 1 - _HAZE, reach_px=4 * _edge_px(rgb))


# -------------------------------------------------------------------------------------------------
# Masks and edges.


def _edge_px(rgb: Frames) -> int:
    """Half the width over which edges are blurred: lenses and JPEG blur large pictures more."""
    return max(2, round(max(rgb.shape[:2]) / 500))


def _reaching_the_frame(mask: Mask) -> Mask:
    """The parts of a mask that touch the picture's border."""
    parts, _ = ndimage.label(mask)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return mask & np.isin(parts, border)


def _holes(alike: Mask, difference: NDArray[np.floating], usual_difference: float) -> Mask:
    """The parts of ``alike`` that are as near to the background's colour as the border is, and no chance patch."""
    parts, count = ndimage.label(alike)
    medians = np.asarray(ndimage.median(difference, parts, np.arange(count + 1)))
    is_hole = (medians <= usual_difference) & (np.bincount(parts.ravel()) >= _HOLE_SHARE * alike.size)
    return alike & is_hole[parts]


def _fading(mask: Mask, background: Mask, difference: NDArray[np.floating]) -> Mask:
    """The parts of a mask that are hardly different from the background where they border on it."""
    near = ndimage.binary_dilation(background, iterations=3) & ~ndimage.binary_dilation(background)
    parts, count = ndimage.label(mask)
    step = np.asarray(ndimage.median(difference, np.where(near, parts, 0), np.arange(count + 1)))
    return mask & (step < 2 * _PLAIN_TOLERANCE)[parts]  # NaN, of a part that does not border on it, is not less


def _without_specks(mask: Mask) -> Mask:
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= _SPECK_SHARE * sizes.max())[parts] & mask


def _with_soft_edge(rgb: Frames, inside: Mask, background: Frames, edge_px: int) -> Frames:
    """Give the pixels along the edge the share of the object in them, by colour: c = a f + (1 - a) b.

    f is the colour of the nearest pixel well inside. Parts too thin to have an inside keep their hard edge.
    """
    sure = ndimage.binary_erosion(inside, iterations=edge_px)
    distance, nearest = _nearest(sure)
    contrast = rgb[nearest] - background
    contrast_squared = (contrast**2).sum(axis=-1)
    share = ((rgb - background) * contrast).sum(axis=-1) / np.maximum(contrast_squared, 1e-6)
    share = np.where(share < _HAZE, 0, np.clip(share, 0, 1))
    at_edge = (distance <= 2 * edge_px) & ~sure & (contrast_squared > _PLAIN_TOLERANCE**2)
    return _clean(rgb, np.where(at_edge, share, inside), sure, 2 * edge_px)


def _clean(rgb: Frames, alpha: NDArray[np.floating], sure: Mask, reach_px: int) -> Frames:
    """Take the background's colour out of half-transparent pixels: they get the nearest sure pixel's colour."""
    distance, nearest = _nearest(sure)
    stained = (alpha > 0) & (alpha < 1 - _HAZE) & (distance <= reach_px)
    colour = np.where(stained[..., None], rgb[nearest], rgb)
    return np.concatenate([colour, alpha[..., None]], axis=-1).astype(np.float32)


def _nearest(mask: Mask) -> tuple[NDArray[np.floating], tuple[NDArray[np.integer], NDArray[np.integer]]]:
    """Distance to, and indices of, the nearest pixel of a mask; infinitely far where the mask is empty."""
    if not mask.any():
        here = np.indices(mask.shape)
        return np.full(mask.shape, np.inf), (here[0], here[1])
    distance, (row, column) = ndimage.distance_transform_edt(~mask, return_indices=True)
    return distance, (row, column)

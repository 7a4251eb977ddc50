"""Taking the light out of a texture that was painted from lit views, as far as directions alone tell it.

Under far light a matt surface is as bright as its orientation says: irradiance is a quadric of the normal
(Ramamoorthi & Hanrahan 2001, "An efficient representation for irradiance environment maps", eq. 12). It is fitted to
the brightness of places of like hue, and divided away. Shadows that parts throw on each other, gloss and coloured light
stay; and an object that is painted darker below than above loses that too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from mv3d.srgb import linear_to_srgb, srgb_to_linear

Array = NDArray[np.float64]

_HUES = 6  # groups of places that are taken to have one albedo, but for what is left unexplained
_MOST_PLACES = 20_000
_ROUNDS = 8
_TOLERATED = 0.1  # of log brightness: what is farther off counts less and less (Cauchy's weights)
_RIDGE = 3e-3  # keeps what few normals tell from running away
_DARKEST = 0.003  # linear light; below it there is nothing to learn from
_STRONGEST = 0.7  # largest change of log brightness: a half of the light, or twice as much


def without_light(colours: Array, normals: Array, known: NDArray[np.bool_]) -> Array:
    """Colours (P, 3), sRGB in [0, 1], of places of a surface as they are under even light from all sides.

    Args:
        colours: as they were seen.
        normals: (P, 3), of length 1.
        known: (P,), of which places the colour was seen; the others' are changed too, but nothing is learnt from them.

    The surface's mean log brightness stays as it is; a surface of few orientations is hardly changed.
    """
    linear = srgb_to_linear(np.clip(colours, 0, 1))
    brightness = linear.mean(axis=1)
    usable = np.flatnonzero(known & (brightness > _DARKEST))
    if len(usable) < 100:
        return colours
    chosen = usable[np.linspace(0, len(usable) - 1, min(len(usable), _MOST_PLACES)).astype(np.int64)]
    quadric = _quadric(normals)
    coefficients = _fit(np.log(brightness[chosen]), quadric[chosen], _hues(linear[chosen]))
    light = quadric @ coefficients
    light = np.clip(light - light[usable].mean(), -_STRONGEST, _STRONGEST)
    return np.where(colours > 0, linear_to_srgb(np.minimum(linear * np.exp(-light)[:, None], 1)), colours)


def _fit(target: Array, basis: Array, group: NDArray[np.integer]) -> Array:
    """Coefficients (8,) of the basis (N, 8) that explain the target (N,) within its groups, whatever their means."""
    weight = np.ones(len(target))
    coefficients = np.zeros(basis.shape[1])
    for _ in range(_ROUNDS):
        total = np.maximum(np.bincount(group, weight), 1e-9)
        y = target - (np.bincount(group, weight * target) / total)[group]
        means = np.stack([np.bincount(group, weight * column) / total for column in basis.T], axis=1)
        x = basis - means[group]
        normal = (x * weight[:, None]).T @ x / weight.sum() + _RIDGE * np.eye(x.shape[1])
        coefficients = np.linalg.solve(normal, (x * weight[:, None]).T @ y / weight.sum())
        weight = 1 / (1 + ((y - x @ coefficients) / _TOLERATED) ** 2)
    return coefficients


def _quadric(normals: Array) -> Array:
    """The eight harmonics of order 1 and 2 at normals (P, 3), but for their constants."""
    x, y, z = normals.T
    return np.stack([x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1], axis=1)


def _hues(linear: Array) -> NDArray[np.integer]:
    """Groups (P,) of like hue, whatever their brightness."""
    hue = linear[:, :2] / linear.sum(axis=1, keepdims=True)
    centres = min(_HUES, len(np.unique(hue.round(3), axis=0)))
    return kmeans2(hue, centres, minit="++", rng=0)[1]

"""Where rays of a picture meet an object, decided together: neighbours agree unless the field is sure that they do not.

Semi-global matching (Hirschmüller 2008, "Stereo processing by semiglobal matching and mutual information", eq. 13),
with slices of space (`mv3d.model.frustum`) in place of disparities. Each ray alone would jump between two places that
are about as likely, and their mean is a third one where nothing is.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

_SUREST = 8.0  # logits of single rays
_STEP, _JUMP = 2.0, 12.0  # logits that a neighbour one bin away costs, and one farther away
_UPRIGHT = 4.0  # how much more they cost up and down: what stands upright is in one slice
_ALIKE = 4.0  # logits more than the cheapest bin: so much do the others of one place cost at most


def agreed_bins(
    logits: Float[Tensor, "K bins"], row: Int64[Tensor, " K"], column: Int64[Tensor, " K"], rays_px: int
) -> Float[Tensor, " K"]:
    """The bin that each of K rays meets, with a fraction.

    Args:
        logits: (K, D), how surely the bins along the rays are full.
        row: (K,), the rays' places in a square of ``rays_px``.
        column: (K,).
        rays_px: width and height of that square.
    """
    cost = np.zeros((rays_px, rays_px, logits.shape[1]), dtype=np.float32)
    there = np.zeros((rays_px, rays_px), dtype=bool)
    cost[row, column] = -logits.clamp(-_SUREST, _SUREST).numpy()
    there[row, column] = True
    total = -3 * cost  # counted by each of four ways, and once is right (Drory et al. 2014)
    for axis, price in ((0, _UPRIGHT), (1, 1.0)):
        for way in (1, -1):
            lines, known = np.moveaxis(cost, axis, 0)[::way], np.moveaxis(there, axis, 0)[::way]
            total += np.moveaxis(_along(lines, known, price)[::way], 0, axis)
    return _middles(total[row, column])


def _middles(cost: Float32[np.ndarray, "K bins"]) -> Float[Tensor, " K"]:
    """The middle of the bins around the cheapest one that cost little more, weighted by how little."""
    more = cost - cost.min(axis=1, keepdims=True)
    runs = np.cumsum(more > _ALIKE, axis=1)
    run = np.take_along_axis(runs, more.argmin(axis=1)[:, None], axis=1)
    weight = np.exp(-more) * ((runs == run) & (more <= _ALIKE))
    middle = (weight * np.arange(cost.shape[1])).sum(axis=1) / weight.sum(axis=1)
    return torch.from_numpy(middle.astype(np.float32))


def _along(
    cost: Float32[np.ndarray, "lines across bins"], known: NDArray[np.bool_], price: float
) -> Float32[np.ndarray, "lines across bins"]:
    """The least cost of every bin, from line to line; where no ray is, it begins anew."""
    out = cost.copy()
    for k in range(1, len(cost)):
        before = out[k - 1]
        least = before.min(axis=1, keepdims=True)
        carried = np.minimum(before, least + _JUMP * price)
        carried[:, 1:] = np.minimum(carried[:, 1:], before[:, :-1] + _STEP * price)
        carried[:, :-1] = np.minimum(carried[:, :-1], before[:, 1:] + _STEP * price)
        out[k] += np.where(known[k - 1][:, None], carried - least, 0)
    return out

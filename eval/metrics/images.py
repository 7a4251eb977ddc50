"""Distances between pictures and between silhouettes, in numpy.

PSNR and SSIM are those of kornia, pixel by pixel (tests compare them), but for what scores need and kornia has not:
a value a picture, a finite one for equal pictures, and means over a part of them. Its SSIM is also several times slower
in double precision, and less exact in single.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

from eval.options import SsimWindow

MAX_PSNR_DB = 100.0
"""What identical pictures get, so that means stay finite; one grey level of difference everywhere is 48 dB."""

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5
_UNIFORM_PX = 7
_SSIM_K1, _SSIM_K2 = 0.01, 0.03

Array = NDArray[np.float64]


def mse(pred: ArrayLike, truth: ArrayLike) -> Array:
    """Mean squared error of pictures (..., H, W, C) in [0, 1], over all pixels and channels."""
    x, y = _paired(pred, truth)
    return np.square(x - y).mean(axis=(-3, -2, -1))


def psnr(pred: ArrayLike, truth: ArrayLike, where: ArrayLike | None = None) -> Array:
    """Peak signal-to-noise ratio in dB of pictures (..., H, W, C) in [0, 1], over all pixels and channels.

    With ``where`` (..., H, W) only over the pixels that are true there; NaN for a picture without any.
    """
    if where is None:
        error = mse(pred, truth)
    else:
        x, y = _paired(pred, truth)
        error = _mean_where(np.square(x - y).mean(axis=-1), where)
    return -10 * np.log10(np.maximum(error, 10 ** (-MAX_PSNR_DB / 10)))


def ssim(pred: ArrayLike, truth: ArrayLike, window: SsimWindow = "gaussian", where: ArrayLike | None = None) -> Array:
    """Structural similarity of pictures (..., H, W, C) in [0, 1]: the mean of `ssim_map`.

    With ``where`` (..., H, W) over the pixels that are true there; NaN for a picture without any.
    """
    return mean_similarity(ssim_map(pred, truth, window), where)


def ssim_map(pred: ArrayLike, truth: ArrayLike, window: SsimWindow = "gaussian") -> Array:
    """Structural similarity at each pixel (..., H, W), the mean over channels; NaN where the window does not count.

    Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13, with data range 1. ``gaussian``: window of 11x11, sigma 1.5, the
    picture mirrored at its border, as torchmetrics does. ``uniform``: window of 7x7, unbiased variances, and the border
    of 3 px does not count, as scikit-image does by default.
    """
    x, y = _paired(pred, truth)
    if window == "uniform":
        return _uniform_map(x, y)
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return similarity.mean(axis=-1)


def mean_similarity(similarity: Array, where: ArrayLike | None = None) -> Array:
    """The mean of a map (..., H, W) where it counts, and where ``where`` is true; NaN for none."""
    counts = np.isfinite(similarity)
    return _mean_where(np.where(counts, similarity, 0), counts if where is None else counts & np.asarray(where))


def silhouette(alpha: ArrayLike) -> NDArray[np.bool_]:
    """The silhouette of an alpha picture: opaque from one half on."""
    return np.asarray(alpha) >= 0.5


def silhouette_iou(pred_alpha: ArrayLike, truth_alpha: ArrayLike) -> Array:
    """Intersection over union of silhouettes (..., H, W); two empty ones count as equal."""
    pred, truth = silhouette(pred_alpha), silhouette(truth_alpha)
    union = (pred | truth).sum(axis=(-2, -1))
    return np.where(union == 0, 1.0, (pred & truth).sum(axis=(-2, -1)) / np.maximum(union, 1))


def _paired(pred: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    a, b = np.asarray(pred, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return a, b


def _mean_where(values: Array, where: ArrayLike) -> Array:
    chosen = np.asarray(where, dtype=bool)
    count = chosen.sum(axis=(-2, -1))
    return np.where(count == 0, np.nan, (values * chosen).sum(axis=(-2, -1)) / np.maximum(count, 1))


def _uniform_map(x: Array, y: Array) -> Array:
    maps = np.full(x.shape[:-1], np.nan)
    edge = _UNIFORM_PX // 2
    for k in np.ndindex(x.shape[:-3]):
        whole = structural_similarity(x[k], y[k], win_size=_UNIFORM_PX, data_range=1.0, channel_axis=-1, full=True)[1]
        maps[k][edge:-edge, edge:-edge] = whole.mean(axis=-1)[edge:-edge, edge:-edge]
    return maps


def _blurred(pictures: Array) -> Array:
    reach = SSIM_WINDOW_PX // 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SSIM_SIGMA_PX) ** 2)
    weights /= weights.sum()
    return correlate1d(correlate1d(pictures, weights, axis=-3, mode="mirror"), weights, axis=-2, mode="mirror")

"""Distances between pictures and between silhouettes, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import correlate1d

MAX_PSNR_DB = 100.0
"""What identical pictures get, so that means stay finite; one grey level of difference everywhere is 48 dB."""

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


def psnr(pred: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB of pictures (..., H, W, C) in [0, 1], over all pixels and channels."""
    x, y = _paired(pred, truth)
    error = np.square(x - y).mean(axis=(-3, -2, -1))
    return -10 * np.log10(np.maximum(error, 10 ** (-MAX_PSNR_DB / 10)))


def ssim(pred: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Structural similarity of pictures (..., H, W, C) in [0, 1], the mean over channels.

    Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13: Gaussian window of 11x11, sigma 1.5, data range 1; averaged over all
    pixels, the picture mirrored at its border, as torchmetrics does (scikit-image leaves the border out).
    """
    x, y = _paired(pred, truth)
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return similarity.mean(axis=(-3, -2, -1))


def silhouette_iou(pred_alpha: ArrayLike, truth_alpha: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of silhouettes (..., H, W), opaque from one half on; two empty ones count as equal."""
    pred, truth = (np.asarray(alpha) >= 0.5 for alpha in (pred_alpha, truth_alpha))
    union = (pred | truth).sum(axis=(-2, -1))
    return np.where(union == 0, 1.0, (pred & truth).sum(axis=(-2, -1)) / np.maximum(union, 1))


def _paired(pred: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(pred, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return a, b


def _blurred(pictures: NDArray[np.float64]) -> NDArray[np.float64]:
    reach = SSIM_WINDOW_PX // 2
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SSIM_SIGMA_PX) ** 2)
    window /= window.sum()
    return correlate1d(correlate1d(pictures, window, axis=-3, mode="mirror"), window, axis=-2, mode="mirror")

"""Every metric's name, how it is printed, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ABSENT = "absent"

Columns = dict[str, NDArray[np.float64]]
"""Scores by metric, one value for each view; NaN where it is undefined."""


@dataclass(frozen=True)
class Metric:
    """A metric by the key that it has in result files."""

    key: str
    label: str
    digits: int
    better: Literal["higher", "lower"]
    of: Literal["view", "object"] = "view"

    @property
    def heading(self) -> str:
        """The label with an arrow to the better side."""
        return f"{self.label} {'↑' if self.better == 'higher' else '↓'}"


METRICS = (
    Metric("psnr", "PSNR dB", 2, "higher"),
    Metric("ssim", "SSIM", 4, "higher"),
    Metric("lpips_alex", "LPIPS alex", 4, "lower"),
    Metric("lpips_vgg", "LPIPS vgg", 4, "lower"),
    Metric("lpips_squeeze", "LPIPS squeeze", 4, "lower"),
    Metric("dists", "DISTS", 4, "lower"),
    Metric("clip_s", "CLIP-S", 4, "higher"),
    Metric("mse", "MSE", 4, "lower"),
    Metric("psnr_object", "PSNR on the object dB", 2, "higher"),
    Metric("ssim_object", "SSIM on the object", 4, "higher"),
    Metric("silhouette_iou", "silhouette IoU", 4, "higher"),
    Metric("consistency_psnr", "consistency PSNR dB", 2, "higher", "object"),
    Metric("consistency_iou", "consistency IoU", 4, "higher", "object"),
    Metric("consistency_psnr_object", "consistency PSNR on the object dB", 2, "higher", "object"),
    Metric("consistency_share", "consistency / true views'", 3, "higher", "object"),
    Metric("chamfer", "Chamfer", 4, "lower", "object"),
    Metric("volume_iou", "volume IoU", 4, "higher", "object"),
    Metric("f_score_10", "F @ .1", 4, "higher", "object"),
    Metric("f_score_20", "F @ .2", 4, "higher", "object"),
    Metric("f_score_50", "F @ .5", 4, "higher", "object"),
    Metric("normal_consistency", "normal consistency", 4, "higher", "object"),
    Metric("seconds", "seconds an object", 1, "lower", "object"),
)
BY_KEY = {metric.key: metric for metric in METRICS}
HEADLINE = ("psnr", "ssim", "lpips_alex", "lpips_vgg", "silhouette_iou")
"""What the short tables show."""

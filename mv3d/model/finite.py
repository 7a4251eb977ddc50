"""Whether numbers are finite: NaN and infinity come of damaged weights and of overflow."""

from __future__ import annotations

import torch
from torch import Tensor

from mv3d.errors import Mv3dError


def is_finite(value: Tensor) -> bool:
    """Whether all numbers of a floating tensor are finite."""
    # A sum of finite numbers is finite, unless it overflows, and takes a tenth of the time.
    return bool(value.sum().isfinite()) or bool(torch.isfinite(value).all())


def check_finite(clip: Tensor, what: str) -> None:
    """Raise `Mv3dError` unless every number of the frames (F, ...) is finite."""
    bad = [k for k, frame in enumerate(clip) if not is_finite(frame)]
    if bad:
        raise Mv3dError(
            f"the model's {what} are NaN or infinite in {len(bad)} of {len(clip)} views (the first is view {bad[0]}): "
            "its weights are damaged or overflow; use others, or less guidance",
            argument="guidance",
        )

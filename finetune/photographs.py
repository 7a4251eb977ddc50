"""A user's own pictures, whose orbits a model in training draws: cut out and framed as ``mv3d orbit`` does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mv3d.errors import Mv3dError
from mv3d.image import cut_out, frame_picture, load_picture
from mv3d.pixels import Frames


def read_photographs(paths: Sequence[Path]) -> list[Frames]:
    """The objects of pictures, free of their backgrounds, each of its picture's size.

    Raises:
        Mv3dError: for a file that is no picture, or shows nothing, by the config's key.
    """
    cut_outs = []
    for path in paths:
        try:
            picture = load_picture(path)
        except Mv3dError as error:
            raise Mv3dError(f"pictures: {error}") from error
        try:
            cut_outs.append(cut_out(picture))
        except Mv3dError:
            raise Mv3dError(
                f"pictures: nothing is left of the object of {path}; give one object's picture, or a cut-out"
            ) from None
    return cut_outs


def framed_photographs(paths: Sequence[Path], size_px: int) -> list[Tensor]:
    """The same as frames (4, size_px, size_px), straight alpha, in [0, 1]; raises as `read_photographs`."""
    frames = [frame_picture(cut_out, size_px) for cut_out in read_photographs(paths)]
    return [torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1) for frame in frames]

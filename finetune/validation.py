"""Sampling validation orbits from a model in training, and scoring them with eval's metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.metrics.images import psnr, ssim
from finetune.data import OrbitFrames
from finetune.pictures import save_rows, save_rows_video, shrunk
from mv3d.model.alpha import on_white
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.models import AnyModel, sample_clip
from mv3d.model.pipeline import SampleSettings


@torch.no_grad()
def score_sampled(
    model: AnyModel, orbits: Iterable[OrbitFrames], lpips: Callable[[Tensor, Tensor], Tensor], sheet: Path
) -> dict[str, float]:
    """PSNR, SSIM and LPIPS on white of whole orbits from their first view, which itself is not scored.

    Larger views than the truth's are averaged to its size. ``lpips`` gets pictures on the model's device. A sheet of
    truth and model's views goes to ``sheet``, a video of them beside it; without orbits, nothing does.
    """
    rows: list[Tensor] = []
    scores: dict[str, list[float]] = {"psnr": [], "ssim": [], "lpips": []}
    device = model.device
    for orbit in orbits:
        truth = orbit.rgba
        # SVD's decoder takes 14 GiB for a clip of its size at once, and layer by layer makes the same frames.
        in_parts = isinstance(model, OrbitModel) and torch.device(device).type != "cpu"
        settings = SampleSettings(num_views=len(truth), decode_chunk=2 if in_parts else None)
        output = sample_clip(model, truth[0].to(device), orbit.cameras, settings).float().cpu()
        output = shrunk(output, truth.shape[-1])
        a, b = (on_white(x[1:]) for x in (output, truth))
        shown, wanted = (x.permute(0, 2, 3, 1).numpy() for x in (a, b))
        scores["psnr"] += psnr(shown, wanted).tolist()
        scores["ssim"] += ssim(shown, wanted).tolist()
        scores["lpips"] += lpips(a.to(device), b.to(device)).flatten().tolist()
        rows += [truth, output]
    if not rows:
        return {}
    save_rows([row[::2] for row in rows], sheet)
    save_rows_video(rows, sheet.with_suffix(".mp4"))
    return {name: float(np.mean(values)) for name, values in scores.items()}

"""Sampling orbits from a model in training: of held-out objects, scored with eval's metrics, and of own pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.metrics.images import psnr, ssim
from finetune.data import OrbitFrames
from finetune.pictures import save_rows, save_rows_video, shrunk
from mv3d.cameras import Camera, static_orbit
from mv3d.generate_settings import DEFAULT_ELEVATION_DEG
from mv3d.model.alpha import on_white
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.facts import SampleSettings
from mv3d.model.models import AnyModel, sample_clip

Lpips = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def score_sampled(
    model: AnyModel,
    orbits: Iterable[OrbitFrames],
    lpips: Lpips | None,
    sheet: Path,
    photographs: Sequence[Tensor] = (),
    num_views: int = 0,
) -> dict[str, float]:
    """PSNR, SSIM and LPIPS on white of whole orbits from their first view, which itself is not scored.

    Larger views than the truth's are averaged to its size. A sheet of truth and model's views goes to ``sheet``, a
    video of them beside it; with neither orbits nor photographs, nothing does.

    Args:
        model: in training.
        orbits: held-out ones.
        lpips: gets pictures on the model's device; None without orbits.
        sheet: a picture file.
        photographs: frames (4, S, S), S the truth's size, of which there is no truth: below the orbits, each beside the
            model's orbit of it.
        num_views: of such an orbit.

    Returns:
        Means over all views; nothing without orbits.
    """
    rows: list[Tensor] = []
    scores: dict[str, list[float]] = {"psnr": [], "ssim": [], "lpips": []}
    device = model.device
    for orbit in orbits:
        assert lpips is not None, "there is something to score"
        truth = orbit.rgba
        output = _sampled(model, truth[0], orbit.cameras)
        a, b = (on_white(x[1:]) for x in (output, truth))
        shown, wanted = (x.permute(0, 2, 3, 1).numpy() for x in (a, b))
        scores["psnr"] += psnr(shown, wanted).tolist()
        scores["ssim"] += ssim(shown, wanted).tolist()
        scores["lpips"] += lpips(a.to(device), b.to(device)).flatten().tolist()
        rows += [truth, output]
    for photograph in photographs:
        cameras = static_orbit(num_views, DEFAULT_ELEVATION_DEG, size_px=photograph.shape[-1])
        rows += [photograph.expand(num_views, -1, -1, -1), _sampled(model, photograph, cameras)]
    if not rows:
        return {}
    save_rows([row[::2] for row in rows], sheet)
    save_rows_video(rows, sheet.with_suffix(".mp4"))
    return {name: float(np.mean(values)) for name, values in scores.items() if values}


def _sampled(model: AnyModel, picture: Tensor, cameras: Sequence[Camera]) -> Tensor:
    """The views (F, 4, S, S) that a model makes of a picture (4, S, S), on the CPU."""
    # SVD's decoder takes 14 GiB for a clip of its size at once, and layer by layer makes the same frames.
    in_parts = isinstance(model, OrbitModel) and model.device.type != "cpu"
    settings = SampleSettings(num_views=len(cameras), decode_chunk=2 if in_parts else None)
    views = sample_clip(model, picture.to(model.device), cameras, settings)
    return shrunk(views.float().cpu(), picture.shape[-1])

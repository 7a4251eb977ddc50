"""The networks that compare pictures, run on many views at once.

A network makes features of pictures and compares two lots of features. So the truth's features are made once for all
methods, whatever their number, and a picture that a method shows several times (the input view repeated) once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.metrics.clip import load_clip
from eval.metrics.dists import load_dists
from eval.metrics.lpips import load_lpips
from eval.metrics.weights import LPIPS_NETWORKS
from mv3d.errors import Mv3dError
from mv3d.pixels import Frames

_PIXELS_AT_ONCE = 32 * 128 * 128  # VGG keeps about 500 bytes a pixel of each side
_COMPARED_AT_ONCE = 8  # pictures whose features fit the processor's cache
_SAMPLED = 997  # every so manieth number of a picture tells most pictures apart


class PerceptualMetric(Protocol):
    """Something that compares pictures by features of them."""

    @property
    def key(self) -> str:
        """The metric's name."""
        ...

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Features of pictures (B, 3, H, W) in [0, 1]; each tensor has B rows."""
        ...

    def compare(self, pred: list[Tensor], truth: list[Tensor]) -> Tensor:
        """Scores (B,) of two lots of features."""
        ...

    def parameters(self) -> Iterator[Tensor]:
        """The weights."""
        ...


def load_perceptual_metrics(
    lpips: Sequence[str], clip: str | None = None, *, dists: bool = False
) -> tuple[list[PerceptualMetric], dict[str, str]]:
    """Load what there are weights for, onto the GPU if there is one, and say why the others are absent, by metric.

    Raises:
        Mv3dError: for a network that LPIPS is not defined on.
    """
    unknown = sorted(set(lpips) - set(LPIPS_NETWORKS))
    if unknown:
        raise Mv3dError(f"there is no LPIPS on {', '.join(unknown)}; networks are {', '.join(LPIPS_NETWORKS)}")
    loaders: dict[str, Callable[[], Any]] = {
        f"lpips_{net}": lambda net=net: load_lpips(net) for net in LPIPS_NETWORKS if net in lpips
    }
    if dists:
        loaders["dists"] = load_dists
    if clip is not None:
        loaders["clip_s"] = lambda: load_clip(clip)
    networks, absent = [], {}
    for key, load in loaders.items():
        try:
            networks.append(load().to("cuda" if torch.cuda.is_available() else "cpu"))
        except Mv3dError as error:
            absent[key] = str(error)
    return networks, absent


@torch.inference_mode()
def compare_pictures(
    networks: Sequence[PerceptualMetric], truth: Frames, predictions: Mapping[str, Frames]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Compare several methods' pictures (N, H, W, 3) in [0, 1] with the truth: scores (N,) by method and metric."""
    height, width = truth.shape[1:3]
    batch = max(1, _PIXELS_AT_ONCE // (height * width))
    scores = {method: {network.key: np.empty(len(truth)) for network in networks} for method in predictions}
    for network in networks:
        for start in range(0, len(truth), batch):
            part = slice(start, start + batch)
            true_features = network.features(_to_tensor(truth[part], network))
            for method, pictures in predictions.items():
                features = _features_once(network, pictures[part])
                scores[method][network.key][part] = _compare(network, features, true_features)
    return scores


def _compare(network: PerceptualMetric, pred: list[Tensor], truth: list[Tensor]) -> NDArray[np.float64]:
    parts = [slice(k, k + _COMPARED_AT_ONCE) for k in range(0, len(pred[0]), _COMPARED_AT_ONCE)]
    scores = [network.compare([a[part] for a in pred], [b[part] for b in truth]) for part in parts]
    return torch.cat(scores).double().cpu().numpy()


def _features_once(network: PerceptualMetric, pictures: Frames) -> list[Tensor]:
    """The features of pictures, each different one looked at once."""
    alike: dict[bytes, list[int]] = {}
    first = []
    for k, picture in enumerate(pictures):
        others = alike.setdefault(picture.reshape(-1)[::_SAMPLED].tobytes(), [])
        same = next((other for other in others if np.array_equal(pictures[other], picture)), None)
        if same is None:
            others.append(k)
        first.append(k if same is None else same)
    chosen = sorted(set(first))
    if len(chosen) == len(pictures):
        return network.features(_to_tensor(pictures, network))
    place = {k: n for n, k in enumerate(chosen)}
    rows = torch.tensor([place[k] for k in first])
    return [tensor[rows.to(tensor.device)] for tensor in network.features(_to_tensor(pictures[chosen], network))]


def _to_tensor(pictures: Frames, network: PerceptualMetric) -> Tensor:
    device = next(network.parameters()).device
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2)

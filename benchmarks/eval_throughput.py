"""How much faster views are scored in batches than one by one with the lpips package, and whether the numbers agree.

    pip install --no-deps lpips==0.1.4
    python benchmarks/eval_throughput.py --net alex --views 168 --methods 6

Both sides score the same methods against the same truth on one device, in turns; the ratio is of their best times. The
methods are those of a benchmark run: two that show other pictures in every view, two that take theirs from elsewhere,
the input view repeated, and white. The lpips package needs torchvision only for the layer lists of its networks, which
the tests' stand-ins give; its own code and linear layers run on the genuine convolutions that both sides share.
"""

from __future__ import annotations

import argparse
import sys
import time
import types
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from eval.metrics.lpips import Lpips, load_lpips
from eval.metrics.perceptual import compare_pictures

_POOLS = {"alex": (3, 2), "vgg": (2, 2)}


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=("alex", "vgg"), default="alex")
    parser.add_argument("--views", type=int, default=168)
    parser.add_argument("--methods", type=int, default=6, choices=range(1, 7))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    ours = load_lpips(asked.net).to(asked.device)
    theirs = _package(load_lpips(asked.net)).to(asked.device)
    truth, methods = _pictures(asked.views, asked.size, asked.methods)
    slow, fast = np.full(2, np.inf), np.full(2, np.inf)
    difference = 0.0
    for _ in range(asked.rounds):
        started = _clocks()
        expected = {name: _one_by_one(theirs, views, truth, asked.device) for name, views in methods.items()}
        slow = np.minimum(slow, _clocks() - started)
        started = _clocks()
        scores = compare_pictures([ours], truth, methods)
        fast = np.minimum(fast, _clocks() - started)
        gaps = [np.abs(scores[name][ours.key] - expected[name]).max() for name in methods]
        difference = max(difference, float(max(gaps)))
    count = asked.views * len(methods)
    threads = f"{torch.get_num_threads()} threads" if asked.device == "cpu" else torch.cuda.get_device_name()
    print(f"{asked.net}, {asked.views} views of {asked.size} px, {len(methods)} methods, {asked.device}, {threads}")
    for k, clock in enumerate(("wall", "CPU")):
        print(
            f"pairs in a second of {clock} time: lpips package, one by one {count / slow[k]:.1f}, batched "
            f"{count / fast[k]:.1f}: {slow[k] / fast[k]:.2f} times as many"
        )
    print(f"largest difference of a score: {difference:.1e}")


def _clocks() -> np.ndarray:
    """Seconds of the wall and of this process's threads, (2,); on a busy machine the latter are the fair ones."""
    return np.array([time.perf_counter(), time.process_time()])


def _pictures(views: int, size_px: int, methods: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    truth = rng.random((views, size_px // 8, size_px // 8, 3)).repeat(8, 1).repeat(8, 2).astype(np.float32)

    def noisy(sigma: float) -> np.ndarray:
        return np.clip(truth + sigma * rng.standard_normal(truth.shape), 0, 1).astype(np.float32)

    every = {
        "model": noisy(0.1),
        "true views, lifted": noisy(0.05),
        "mean": noisy(0.3),
        "nearest": noisy(0.2),
        "input view repeated": truth[[k // 21 * 21 for k in range(views)]],
        "white": np.ones_like(truth),
    }
    return truth, dict(list(every.items())[:methods])


@torch.no_grad()
def _one_by_one(network: nn.Module, pred: np.ndarray, truth: np.ndarray, device: str) -> np.ndarray:
    scores = []
    for pair in zip(pred, truth, strict=True):
        a, b = (torch.from_numpy(picture).permute(2, 0, 1)[None].to(device) for picture in pair)
        scores.append(network(a, b, normalize=True).item())
    return np.array(scores)


def _package(ours: Lpips) -> nn.Module:
    """The lpips package's network on our convolutions."""
    layers: list[nn.Module] = []
    convolutions = iter(ours.convs)
    for pool, stage in ours._stages:
        if pool:
            layers.append(nn.MaxPool2d(*_POOLS[ours.net]))
        for _ in stage:
            layers += [next(convolutions), nn.ReLU()]
    stack = types.SimpleNamespace(features=nn.Sequential(*layers, nn.MaxPool2d(*_POOLS[ours.net])))
    models = types.ModuleType("torchvision.models")
    models.alexnet = models.vgg16 = lambda *_, **__: stack  # pyright: ignore[reportAttributeAccessIssue]
    package = types.ModuleType("torchvision")
    package.models = models  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules |= {"torchvision": package, "torchvision.models": models}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("lpips").LPIPS(net=ours.net, pnet_rand=True, verbose=False)


if __name__ == "__main__":
    main()

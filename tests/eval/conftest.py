import sys
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from eval.views.views import Views
from mv3d.cameras import static_orbit
from mv3d.orbit import Facts, Orbit
from mv3d.pixels import from_uint8
from tests.mv3d.conftest import tiny_model

__all__ = ["tiny_model"]

MakeOrbit = Callable[..., Orbit]


@pytest.fixture
def make_orbit() -> MakeOrbit:
    """Orbits of random blocks with a transparent margin; values are whole 255ths, so that files keep them exactly."""

    def make(
        seed: int, num_views: int = 5, size_px: int = 32, elevation_deg: float = 10.0, input_index: int | None = 0
    ):
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 256, (num_views, size_px // 4, size_px // 4, 4), dtype=np.uint8)
        blocks[..., 3] = 255
        blocks[:, :1, :, 3] = blocks[:, :, -1:, 3] = 0
        frames = from_uint8(blocks.repeat(4, axis=1).repeat(4, axis=2))
        return Orbit(frames, static_orbit(num_views, elevation_deg, size_px=size_px), Facts(input_index=input_index))

    return make


@pytest.fixture
def make_views(make_orbit) -> Callable[..., Views]:
    """The same, as what is scored."""

    def make(*args, **kwargs) -> Views:
        orbit = make_orbit(*args, **kwargs)
        return Views(orbit.frames, orbit.cameras, orbit.facts.input_index)

    return make


@pytest.fixture
def layer_lists(monkeypatch):
    """The three feature stacks by which packages know torchvision, for comparisons without that package."""
    torch.manual_seed(0)

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU()]

    class Fire(nn.Module):
        def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
            super().__init__()
            self.squeeze, self.left = nn.Conv2d(inputs, squeezed, 1), nn.Conv2d(squeezed, expanded, 1)
            self.right = nn.Conv2d(squeezed, expanded, 3, padding=1)

        def forward(self, x):
            x = self.squeeze(x).relu()
            return torch.cat([self.left(x).relu(), self.right(x).relu()], 1)

    def alexnet():
        pool = [nn.MaxPool2d(3, 2)]
        deep = [*conv(192, 384, 3, 1, 1), *conv(384, 256, 3, 1, 1), *conv(256, 256, 3, 1, 1)]
        return nn.Sequential(*conv(3, 64, 11, 4, 2), *pool, *conv(64, 192, 5, 1, 2), *pool, *deep, *pool)

    def vgg16():
        layers, inputs = [], 3
        for count, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
            for _ in range(count):
                layers += conv(inputs, width, 3, 1, 1)
                inputs = width
            layers.append(nn.MaxPool2d(2, 2))
        return nn.Sequential(*layers)

    def squeezenet1_1():
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        fires = [Fire(64, 16, 64), Fire(128, 16, 64), pool, Fire(128, 32, 128), Fire(256, 32, 128), pool]
        fires += [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
        return nn.Sequential(*conv(3, 64, 3, 2), pool, *fires)

    def holder(make):
        return lambda *_, **__: types.SimpleNamespace(features=make())

    stacks = {"alexnet": alexnet, "vgg16": vgg16, "squeezenet1_1": squeezenet1_1}
    models = types.ModuleType("torchvision.models")
    transforms = types.ModuleType("torchvision.transforms")
    for name, make in stacks.items():
        setattr(models, name, holder(make))
    package = types.ModuleType("torchvision")
    package.models, package.transforms = models, transforms  # pyright: ignore[reportAttributeAccessIssue]
    for module in (package, models, transforms):
        monkeypatch.setitem(sys.modules, module.__name__, module)

"""The sizes in a network's ``config.json`` against those of its weights, before anything is made or allocated."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mv3d.errors import Mv3dError

Shapes = Mapping[str, tuple[int, ...]]

_NOTHING_IS_FINE = ("pose_embed_dim", "coarse_channels", "pose_channels")  # a network without that condition
_WIDTHS = re.compile(r"(^|_)(channels|dim|heads|groups|hidden_size|intermediate_size|patch_size)$")
_LAYERS = re.compile(r"(^|_)(layers(_per_block)?|res_blocks)$")
_LEVELS = "block_out_channels"
_TENSORS_A_LAYER = 8  # at least: two norms and two products, with their biases
_LIMITS = {
    **dict.fromkeys(("sample_size", "image_size", "picture_px", "backbone_px", "rays_px"), 8192),
    "grid_size": 512,
    "rope_max_seq_len": 2**16,
    "upscale_factor": 16,
}
_DEEPEST = 4  # lists in lists
_HUGE = 10**15


def check_sizes(config: Mapping[str, Any], shapes: Shapes, place: str) -> None:
    """Refuse a config that asks for more than its weights hold: wider, deeper, or nothing where there must be some.

    Args:
        config: of diffusers, transformers or `CoarseConfig`; keys that tell no size may hold any finite numbers.
        shapes: of the weights, by name.
        place: for the error.

    Raises:
        Mv3dError: naming the key, its value and the limit.
    """
    widest = max((max(shape, default=1) for shape in shapes.values()), default=1)
    layers = 1.0
    for key, value in config.items():
        numbers = list(_numbers(value, f"{place}: {key}", len(shapes)))
        odd = [number for number in numbers if not math.isfinite(number)]
        if odd:
            raise Mv3dError(f"{place}: {key} {odd[0]} is no finite number")
        if _LAYERS.search(key):
            _check_range(
                numbers, 1, max(len(shapes) // _TENSORS_A_LAYER, 1), key, place, "its weights have tensors for"
            )
            layers *= max(numbers, default=1)
        elif key in _LIMITS:
            _check_range(numbers, 1, _LIMITS[key], key, place, "the limit is")
        elif _WIDTHS.search(key):
            least = 0 if key in _NOTHING_IS_FINE else 1
            _check_range(numbers, least, widest, key, place, "the widest of its weights has")
    levels = config.get(_LEVELS)
    needed = layers * _TENSORS_A_LAYER * (len(levels) if isinstance(levels, (list, tuple)) else 1)
    if needed > max(len(shapes), _TENSORS_A_LAYER):
        raise Mv3dError(f"{place} asks for layers of {needed:g} tensors at least, but its weights are {len(shapes)}")


def _numbers(value: Any, what: str, longest: int, depth: int = 0) -> Iterator[float]:
    """All numbers in a value and the lists in it."""
    if isinstance(value, (list, tuple)):
        if len(value) > longest or depth > _DEEPEST:
            raise Mv3dError(f"{what} is a list of {len(value)} in {depth} others; its weights are {longest} tensors")
        for part in value:
            yield from _numbers(part, what, longest, depth + 1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield max(min(value, _HUGE), -_HUGE) if isinstance(value, int) else value  # not all integers have a float


def _check_range(numbers: list[float], low: int, high: int, key: str, place: str, limit: str) -> None:
    for number in numbers:
        if number > high:
            raise Mv3dError(f"{place}: {key} {number:g} is too much; {limit} {high}")
        if number < low:
            raise Mv3dError(f"{place}: {key} {number:g} is too little; {low} is the least")

"""What an orbit of SVD's size takes of a GPU's memory, by option: worked out on tensors without storage.

    python benchmarks/sampling_memory.py                  # a line of each setting: GiB of the stages, and of all
    python benchmarks/sampling_memory.py --views 14 --size 512
    python benchmarks/sampling_memory.py --measure        # narrow networks on this CPU: worked out, and measured

The project's own functions run on fake tensors, and every storage on the fake device is counted while it lives.
Attention counts as what fused kernels take. What a card keeps for itself comes on top: a tenth and one GiB are added
for the smallest card that suffices, as ``python -m finetune --dry-run`` adds them.
"""

from __future__ import annotations

import argparse
import math
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.random_weights import VAE  # noqa: E402
from mv3d.model.autoencoder import Autoencoder, encode  # noqa: E402
from mv3d.model.conditioning import Conditions  # noqa: E402
from mv3d.model.decoding import decode_clip  # noqa: E402
from mv3d.model.denoiser import Denoiser  # noqa: E402
from mv3d.model.placement import compute_in_float32  # noqa: E402
from mv3d.model.unet import OrbitUNet  # noqa: E402

GIB = 2**30
OFFLOADS = ("none", "model", "sequential")
SETTINGS: dict[str, list[tuple[str, int | None]]] = {
    "sv3d": [("none", None), ("model", None), ("sequential", None)],
    "svd": [("none", None), ("none", 4), ("model", None), ("model", 4), ("model", 1), ("sequential", 1)],
}
"""By kind: --offload and --decode-chunk. SV3D's decoder takes two frames at a time in any case."""
CARDS_GB = (8, 12, 16, 24, 48, 80)
CLIP_PARAMETERS = 632_076_800  # of the image encoder, ViT-H/14, which works before the others and on one picture
_GPU = torch.device("meta")  # inside `FakeTensorMode` tensors go there and come back
NARROW: dict[str, Any] = {"block_out_channels": (64, 128, 128, 128), "num_attention_heads": (1, 2, 2, 2)}


@dataclass(frozen=True, eq=False)
class Networks:
    """Of a kind of model: without storage, or real ones."""

    unet: OrbitUNet
    vae: Autoencoder


@dataclass(frozen=True)
class Need:
    """Bytes on the device."""

    weights: dict[str, int]
    """By network."""
    largest_layer: int
    """Of the UNet: what `--offload sequential` brings at a time."""
    stages: dict[str, int]
    """What encode, sample and decode take beside the weights."""

    def total(self, offload: str) -> int:
        """The peak over all stages."""
        if offload == "none":
            return sum(self.weights.values()) + max(self.stages.values())
        unet = self.weights["unet"] if offload == "model" else self.largest_layer
        at = {"encode": self.weights["vae"], "sample": unet, "decode": self.weights["vae"]}
        return max(self.weights["image_encoder"], *(at[stage] + bytes_ for stage, bytes_ in self.stages.items()))


def make_networks(kind: str, width: dict[str, Any] | None = None) -> Networks:
    """SVD's networks with poses, or SV3D_p's; narrower ones with other ``width`` of the UNet and half as wide a VAE."""
    sv3d = kind == "sv3d"
    more = {"input_last": True, "projection_class_embeddings_input_dim": 256} if sv3d else {}
    config: dict[str, Any] = VAE | ({} if width is None else {"block_out_channels": (64, 64, 64, 64)})
    unet = OrbitUNet(**more, **(width or {}))
    if sv3d:
        ups: dict[str, Any] = {"up_block_types": ("UpDecoderBlock2D",) * 4}
        return Networks(unet.eval(), AutoencoderKL(**config | ups).eval())
    return Networks(unet.eval(), AutoencoderKLTemporalDecoder(**config).eval())


def work_out(
    kind: str,
    *,
    views: int = 21,
    size_px: int = 576,
    dtype: torch.dtype = torch.float16,
    apart: bool = False,
    decode_chunk: int | None = None,
    width: dict[str, Any] | None = None,
    device: torch.device = _GPU,
) -> Need:
    """What a model's orbit takes, on a GPU or, with ``device``, on a CPU.

    Args:
        kind: svd or sv3d.
        views: of the orbit.
        size_px: of its frames.
        dtype: of weights and products.
        apart: the halves of guidance are made one after the other, as with any `--offload`.
        decode_chunk: frames that are decoded at a time.
        width: of narrower networks.
        device: whose memory counts.
    """
    with torch.device("meta"):
        made = make_networks(kind, width)
    size = dtype.itemsize
    layers = [_count(module.parameters(recurse=False)) for module in made.unet.modules()]
    weights = {name: size * _count(getattr(made, name).parameters()) for name in ("unet", "vae")}
    weights["image_encoder"] = size * CLIP_PARAMETERS if width is None else 0
    stages = {}
    for name in ("encode", "sample", "decode"):
        asked = {"sample": apart, "decode": decode_chunk}.get(name)
        of = "" if name == "sample" else kind
        key = (name, of, views, size_px, asked, dtype, str(width), device.type)
        if key not in _KNOWN:
            _KNOWN[key] = _peak_of(name, made, views, size_px, apart, decode_chunk, dtype, device)
        stages[name] = _KNOWN[key]
    if dtype == torch.float16 and device.type != "cpu":
        stages["encode"] += weights["vae"]  # the encoder of pictures works in float32
    return Need(weights, size * max(layers), stages)


_KNOWN: dict[tuple[Any, ...], int] = {}
"""Peaks that were worked out before: settings share stages."""


def _peak_of(
    name: str,
    made: Networks,
    views: int,
    size_px: int,
    apart: bool,
    decode_chunk: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> int:
    is_widened = device.type == "cpu" and dtype.itemsize < 4
    products = torch.float32 if is_widened else dtype
    widened = _widened(made.unet, dtype, device) if is_widened else nullcontext()
    with FakeTensorMode(), torch.no_grad(), _FusedAttention(), widened:
        _place(made.unet, products, device)
        _place(made.vae, torch.float32 if name == "encode" else products, device)
        work = stages_of(made, views, size_px, apart, decode_chunk, device)[name]
        with _LiveByPart(device, [made.unet, made.vae]) as live:
            work()
    return live.peak


def stages_of(
    made: Networks, views: int, size_px: int, apart: bool, decode_chunk: int | None, device: torch.device
) -> dict[str, Callable[[], object]]:
    """What `mv3d.model.pipeline` does of an orbit, stage by stage."""
    vae, config, side = made.vae, made.unet.config, size_px // 8
    ids = config["projection_class_embeddings_input_dim"] // config["addition_time_embed_dim"]
    shapes = [(1, 4, side, side), (1, 1, config["cross_attention_dim"]), (1, ids), (1, views, 2)]
    conditions = Conditions(*(torch.zeros(shape, device=device) for shape in shapes))
    clip = torch.zeros(1, views, 4, side, side, device=device)
    picture = torch.zeros(1, 3, size_px, size_px, device=device)

    def sample() -> None:
        # As `guided` does, whose scales are numbers, which fake tensors have not.
        halves = [conditions] if apart else [conditions, conditions.without_image()]
        of_all = halves[0] if apart else halves[0].joined(halves[1])
        noisy = clip.repeat(len(halves), 1, 1, 1, 1)
        Denoiser(made.unet)(noisy, noisy.new_ones(len(noisy)), of_all)

    def decode() -> None:
        with patch("mv3d.model.decoding.check_finite"):  # fake numbers are neither finite nor not
            decode_clip(vae, clip[0].to(vae.dtype), frames_at_once=decode_chunk)

    return {"encode": lambda: encode(vae, picture).mode(), "sample": sample, "decode": decode}


def measured(made: Networks, views: int, size_px: int, *, apart: bool, decode_chunk: int | None) -> dict[str, int]:
    """Peaks of what torch allocates on this CPU for the stages of networks that are real, in bytes."""
    stages = stages_of(made, views, size_px, apart, decode_chunk, torch.device("cpu"))
    return {name: int(_allocated(work).max()) for name, work in stages.items()}


def measured_in_16_bits(made: Networks, views: int, size_px: int) -> tuple[int, int]:
    """Bytes of a UNet's weights that are kept in 16 bits and multiplied in 32, and at the peak of `sample` beside them.

    Each layer's weights are made anew behind its work, and a profiler sees them go that has seen them come: so of two
    passes the second counts.
    """
    compute_in_float32(made.unet.requires_grad_(False), torch.float16)
    work = stages_of(made, views, size_px, apart=True, decode_chunk=None, device=torch.device("cpu"))["sample"]
    there = _allocated(lambda: (work(), work()))
    anew = sum(weight.nbytes for weight in made.unet.parameters() if weight.dtype == torch.float16)
    return sum(weight.nbytes for weight in made.unet.parameters()), int(there[len(there) // 2 :].max()) - anew


def _allocated(work: Callable[[], object]) -> np.ndarray:
    """Bytes that are there after each allocation of a work, and each release of what it has allocated."""
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profiler:
        work()
    found: Any = profiler.profiler
    events = [event for event in found.kineto_results.events() if event.name() == "[memory]"]
    return np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])


# -------------------------------------------------------------------------------------------------
# Counting.


class _FusedAttention(TorchFunctionMode):
    """Attention as fused kernels make it: nothing beside its result."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, _, value = args[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))


@contextmanager
def _widened(network: nn.Module, stored: torch.dtype, device: torch.device) -> Iterator[None]:
    """Have layers take what those of `compute_in_float32` take within the block.

    A layer's weights are in float32 in place of 16 bits while it works, and in both behind its work.
    """
    more: dict[nn.Module, Tensor] = {}

    def before(layer: nn.Module, _: object) -> None:
        more[layer] = torch.empty(_count(layer.parameters(recurse=False)), dtype=stored, device=device)

    def after(layer: nn.Module, *_: object) -> None:
        wide = more.pop(layer)
        torch.empty_like(wide)  # for a moment

    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d)]
    handles = [layer.register_forward_pre_hook(before) for layer in layers]
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _LiveByPart(TorchDispatchMode):
    """Counts the bytes of storages on a device that are there at once, of those that are made while it is active.

    Convolutions across time count with what they read laid out anew, and unfolded by their kernel, as one of a CPU's
    threads does it.
    """

    def __init__(self, device: torch.device, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._type = device.type
        weights = [parameter for network in networks for parameter in network.parameters()]
        self._there: dict[int, Any] = {id(weight.untyped_storage()): weight for weight in weights}  # views show them

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._add, result)
        if self._type == "cpu" and func is torch.ops.aten.convolution.default and args[0].ndim == 5:
            given, kernel = args[:2]
            copies = 0 if given.is_contiguous() else given.numel()
            copies += result.numel() // result.shape[1] * given.shape[1] * math.prod(kernel.shape[2:])
            self.peak = max(self.peak, self.now + copies * given.element_size())
        return result

    def _add(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        number = id(storage)
        if value.device.type != self._type or number in self._there:
            return
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)

        def free(_: object) -> None:
            self.now -= size
            del self._there[number]

        self._there[number] = weakref.ref(storage, free)


def _place(network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give a network fake weights."""
    for module in network.modules():
        for name, value in module.named_parameters(recurse=False):
            fake = torch.empty(value.shape, dtype=dtype, device=device)
            setattr(module, name, nn.Parameter(fake, requires_grad=False))


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


# -------------------------------------------------------------------------------------------------
# Tables.


def card_of(needed: int) -> str:
    """The smallest card that has so many bytes to spare, with a tenth and a GiB for itself."""
    return next((f"{size} GB" for size in CARDS_GB if size >= 1.1 * needed / GIB + 1), "none")


def print_needs(views: int, size_px: int) -> None:
    """A line of each setting: GiB of the stages beside the weights, GiB in all, and the card."""
    print(f"{views} views, {size_px} px, 16 bits")
    apart = {offload: offload != "none" for offload in OFFLOADS}
    for kind in ("sv3d", "svd"):
        for offload, chunk in SETTINGS[kind]:
            need = work_out(kind, views=views, size_px=size_px, apart=apart[offload], decode_chunk=chunk)
            stages = ", ".join(f"{name} {size / GIB:.2f}" for name, size in need.stages.items())
            total = need.total(offload)
            asked = f"--offload {offload}" + ("" if chunk is None else f" --decode-chunk {chunk}")
            print(f"{kind} {asked}: {stages}; all {total / GIB:.2f}: {card_of(total)}", flush=True)


def print_measured(views: int, size_px: int) -> None:
    """Narrow networks: what is worked out of each stage, and what this CPU allocates, in MiB."""
    for apart, chunk in ((False, views), (True, 2)):
        for kind in ("sv3d", "svd"):
            known = work_out(
                kind,
                views=views,
                size_px=size_px,
                dtype=torch.float32,
                apart=apart,
                decode_chunk=chunk,
                width=NARROW,
                device=torch.device("cpu"),
            )
            found = measured(make_networks(kind, NARROW), views, size_px, apart=apart, decode_chunk=chunk)
            for name, size in found.items():
                print(f"{kind} apart {apart} chunk {chunk} {name}: {known.stages[name] / 2**20:.1f} {size / 2**20:.1f}")
    known = work_out(
        "svd", views=views, size_px=size_px, dtype=torch.float16, apart=True, width=NARROW, device=torch.device("cpu")
    )
    found_weights, found_sample = measured_in_16_bits(make_networks("svd", NARROW), views, size_px)
    print(f"svd 16 bits weights of the UNet: {known.weights['unet'] / 2**20:.1f} {found_weights / 2**20:.1f}")
    print(f"svd 16 bits apart True sample: {known.stages['sample'] / 2**20:.1f} {found_sample / 2**20:.1f}")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=21)
    parser.add_argument("--size", type=int, default=576, help="pixels")
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    if options.measure:
        print_measured(options.views, options.size)
    else:
        print_needs(options.views, options.size)


if __name__ == "__main__":
    main()

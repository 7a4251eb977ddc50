"""Where a model's networks lie while they work, and in which numbers: on a GPU, only partly there, or on a CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from mv3d.errors import Mv3dError
from mv3d.model_options import Dtype, ModelOptions, Offload

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_LARGE = 5 * 10**8
"""Parameters of a UNet from which a model counts as one of SVD's size (1.5 billion; the bundled model: 20 million)."""


@dataclass(frozen=True)
class Placement:
    """Where networks compute, and whether they are there while they do not."""

    device: torch.device
    offload: Offload = "none"

    @property
    def spares_memory(self) -> bool:
        """Whether work is done in parts that could be done at once: with little memory, or where it is no faster."""
        return self.offload != "none" or self.device.type == "cpu"

    @contextmanager
    def using(self, network: nn.Module) -> Iterator[None]:
        """Have a network on the device within the block, and in main memory again after it, if it is to be away."""
        if self.offload == "none" or is_by_layers(network):
            yield
            return
        with explained_memory(self, "load a network"):
            nn.Module.to(network, self.device)
        try:
            yield
        finally:
            nn.Module.to(network, "cpu")


def asked_placement(device: str, options: ModelOptions) -> Placement:
    """Where ``options`` want a model on a device of torch to be; raises `Mv3dError` for what makes no sense there."""
    placement = Placement(torch.device(device), options.offload)
    if options.offload != "none" and placement.device.type == "cpu":
        raise Mv3dError(
            f"offload {options.offload} brings a model to a GPU part by part, and the device is the CPU, where it is "
            "already; leave it out, or choose another device",
            argument="offload",
        )
    return placement


def weights_dtype(dtype: Dtype, num_parameters: int, half: torch.dtype = torch.float16) -> torch.dtype:
    """The numbers that ``dtype`` stands for, for so many weights that are published as ``half``, if they are many."""
    if dtype == "auto":
        return half if num_parameters >= _LARGE else torch.float32
    return _DTYPES[dtype]


# -------------------------------------------------------------------------------------------------
# Less than all of a network at a time.


def place_by_layers(network: nn.Module, device: torch.device) -> None:
    """Keep weights in main memory, and bring those of each layer to the device for its work."""
    from accelerate import cpu_offload  # imports much

    network.requires_grad_(False)
    cpu_offload(network, execution_device=device)


def is_by_layers(network: nn.Module) -> bool:
    """Whether `place_by_layers` has had the network."""
    return hasattr(network, "_hf_hook")


def compute_in_float32(network: nn.Module, stored: torch.dtype) -> None:
    """Keep the weights of products in 16 bits and multiply in float32, layer by layer.

    For processors, of which few multiply 16 bits, and those that must imitate it are slow. All of 16 bits is in
    float32, so frames are those of a network that is kept in float32, in half the memory.
    """
    from diffusers.hooks.layerwise_casting import apply_layerwise_casting

    # CLIP makes its pixels of the type that these few weights have; the others are in float32 already.
    skipped = ("patch_embedding$", *(getattr(network, "_keep_in_fp32_modules", None) or ()))
    apply_layerwise_casting(network, stored, torch.float32, skip_modules_pattern=skipped)
    for module in network.modules():
        if not hasattr(module, "_diffusers_hook"):  # norms and single numbers: small
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.is_floating_point():
                    setattr(module, name, buffer.float())


# -------------------------------------------------------------------------------------------------
# Compiled.


def compile_network(network: nn.Module, placement: Placement) -> None:
    """Have torch compile a network when it is first used; here, something small is compiled, to see that it can.

    Raises:
        Mv3dError: if it cannot be: the compiler is missing, or the network's layers come one by one.
    """
    if placement.offload == "sequential":
        raise Mv3dError(
            "compile wants the whole network on the device, and offload sequential brings it layer by layer; take "
            "offload model, or leave compile out",
            argument="offload",
        )
    size = 1000 + time.time_ns() % 10**6  # not one that has been compiled before: that would be taken from a cache
    try:
        torch.compile(torch.nn.functional.silu)(torch.zeros(size, device=placement.device))
    except Exception as error:  # what compilers' absence looks like differs by device and system
        needed = "a C++ compiler, such as g++," if placement.device.type == "cpu" else "Triton and a C compiler"
        reason = next((line for line in reversed(str(error).splitlines()) if _says_what(line)), type(error).__name__)
        raise Mv3dError(
            f"torch cannot compile for {placement.device} here ({reason.strip()}); install {needed} or leave it out",
            argument="compile",
        ) from error
    network.compile()


def _says_what(line: str) -> bool:
    """Whether a line of a compiler's error is more than advice on how to see more of it."""
    return bool(line.strip()) and "TORCH" not in line


# -------------------------------------------------------------------------------------------------
# Too little of it.


@contextmanager
def explained_memory(placement: Placement, work: str, argument: str | None = None) -> Iterator[None]:
    """Turn a want of memory into one line that names what helps: ``argument``, or else less of a model at a time.

    Raises:
        Mv3dError: if what is done in the block takes more memory than there is.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        advice, helps = _advice(placement, argument)
        message = f"there is not enough memory on {placement.device} to {work}: {advice}"
        raise Mv3dError(message, argument=helps) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says so; torch has a class of its own only for GPUs of some makers."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


def _advice(placement: Placement, argument: str | None) -> tuple[str, str | None]:
    if argument is not None:
        return "take less of it at a time", argument
    if placement.device.type != "cpu":
        further: dict[Offload, Offload] = {"none": "model", "model": "sequential"}
        if placement.offload in further:
            return f"offload {further[placement.offload]} keeps less of the model there", "offload"
    return "ask for fewer views, and for weights of 16 bits", "num_views"

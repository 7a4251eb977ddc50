"""How the frozen base beside a LoRA is kept while it trains: in 32 or 16 bits, in 8, or in main memory.

Weights of products are meant, linear layers and convolutions, which are nearly all there is; norms and what is trained
stay in float32. In 8 bits and in main memory a weight is brought to the device, in bfloat16, for each product and again
for the gradient with respect to its input, and let go: autograd would keep what it multiplied by until the way back.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BaseStorage = Literal["float32", "bfloat16", "float8", "cpu"]

_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_PRODUCTS = (nn.Linear, *_CONVOLUTIONS)


class KeptWeight(Protocol):
    """A weight that is not there as it is multiplied by."""

    device_bytes: int
    """What it takes on the device while it is not used."""

    def fetch(self) -> Tensor:
        """The weight on the device, in bfloat16."""
        ...


def store_base(network: nn.Module, storage: BaseStorage, device: torch.device | str) -> None:
    """Keep the frozen weights of a network's products as ``storage`` says; all but float32 wants products in bfloat16.

    Args:
        network: is changed; adapters are in it already.
        storage: bfloat16 halves what they take, float8 quarters it (see `Float8Weight` for what it rounds to), cpu
            keeps bfloat16 in main memory, with the results of bfloat16 bit for bit.
        device: where the network computes; it need not be there yet.
    """
    if storage == "float32":
        return
    for module in network.modules():
        if isinstance(module, _PRODUCTS):
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    setattr(module, name, nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False))
    if storage == "bfloat16":
        return
    lane = Lane(torch.device(device))
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) not in _PRODUCTS:  # those derived from them compute otherwise
                continue
            parameter = child.get_parameter("weight")
            if not parameter.requires_grad:
                weight = parameter.detach()
                kept = Float8Weight(weight.to(device)) if storage == "float8" else MainMemoryWeight(weight, lane)
                setattr(parent, name, StoredProduct(child, kept))


def stored_bytes(network: nn.Module) -> int:
    """What the weights of a network take on the device while none of them is used."""
    kept = [module.kept.device_bytes for module in network.modules() if isinstance(module, StoredProduct)]
    return sum(p.numel() * p.element_size() for p in network.parameters()) + sum(kept)


class StoredProduct(nn.Module):
    """A frozen linear layer or convolution whose weight is fetched when it is used."""

    def __init__(self, product: nn.Module, kept: KeptWeight) -> None:
        super().__init__()
        assert isinstance(product, _PRODUCTS)
        self.bias = product.bias
        self.kept = kept
        self._settings: tuple[Any, ...] | None = None
        """Of a convolution: stride, padding, dilation, transposed, output padding, groups."""
        if isinstance(product, _CONVOLUTIONS):
            assert product.padding_mode == "zeros"
            assert not isinstance(product.padding, str)
            none = (0,) * len(product.stride)
            self._settings = (product.stride, product.padding, product.dilation, False, none, product.groups)

    def forward(self, value: Tensor) -> Tensor:
        """As the product does under autocast in bfloat16."""
        return _MultiplyFetched.apply(value.to(torch.bfloat16), self.bias, self.kept, self._settings)  # pyright: ignore


class _MultiplyFetched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, bias: Tensor | None, kept: KeptWeight, settings: Any) -> Tensor:
        ctx.kept, ctx.settings, ctx.shape = kept, settings, value.shape
        if settings is None:
            return F.linear(value, kept.fetch(), bias)
        return torch.convolution(value, kept.fetch(), bias, *settings)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), weight = gradients, ctx.kept.fetch()
        if ctx.settings is None:
            return (gradient.reshape(-1, weight.shape[0]) @ weight).view(ctx.shape), None, None, None
        unread = gradient.new_empty(1).expand(ctx.shape)  # of the input only its shape matters
        only_input = (True, False, False)
        found = torch.ops.aten.convolution_backward(gradient, unread, weight, None, *ctx.settings, only_input)
        return found[0], None, None, None


class Float8Weight:
    """In 8 bits: 1 of sign, 4 of exponent, 3 of mantissa, and a power of two for every row, of one output.

    Each number is rounded by at most 1/16 of itself, or, if it is less than 1/14336 of its row's largest, by at most
    1/229376 of that one: normally distributed ones by 2.5 % in the root mean square.
    """

    def __init__(self, weight: Tensor) -> None:
        rows = weight.detach().float().flatten(1)
        largest = rows.abs().amax(dim=1).clamp(min=1e-30)
        scales = torch.exp2(torch.log2(largest / _LARGEST).ceil()).to(torch.bfloat16)
        self._values = (rows / scales[:, None].float()).to(torch.float8_e4m3fn).view(weight.shape)
        self._scales = scales.view(-1, *[1] * (weight.ndim - 1))
        self.device_bytes = self._values.nbytes + self._scales.nbytes

    def fetch(self) -> Tensor:
        """Exact, since bfloat16 holds the eight bits and the power of two."""
        return self._values.to(torch.bfloat16) * self._scales


class MainMemoryWeight:
    """In main memory, and on the device while it is used."""

    device_bytes = 0

    def __init__(self, weight: Tensor, lane: Lane) -> None:
        weight = weight.cpu()
        self.values = weight.pin_memory() if lane.device.type == "cuda" else weight  # or no copy runs beside other work
        self._lane = lane

    def fetch(self) -> Tensor:
        """A copy on the device."""
        return self._lane.fetch(self)


class Lane:
    """Brings weights to a device, each while the one before it is used.

    Which comes next is not told but remembered: of two that followed one another, what followed them the last time. So
    it is known on the way back too, where the order is another one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.foreseen = 0
        """How many were on their way when they were wanted."""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._after: dict[tuple[MainMemoryWeight | None, MainMemoryWeight | None], MainMemoryWeight] = {}
        self._last: tuple[MainMemoryWeight | None, MainMemoryWeight | None] = (None, None)
        self._coming: tuple[MainMemoryWeight, Tensor] | None = None

    def fetch(self, wanted: MainMemoryWeight) -> Tensor:
        """The weight on the device, for work of the present stream."""
        self._after[self._last] = wanted
        self._last = (self._last[1], wanted)
        if self._coming is not None and self._coming[0] is wanted:
            found = self._coming[1]
            self.foreseen += 1
        else:
            found = self._bring(wanted)
        if self._stream is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_stream(self._stream)
            found.record_stream(now)  # its memory is not given away before this work is done
        likely = self._after.get(self._last)
        self._coming = None if likely is None else (likely, self._bring(likely))
        return found

    def _bring(self, weight: MainMemoryWeight) -> Tensor:
        with torch.cuda.stream(self._stream):
            return weight.values.to(self.device, non_blocking=True, copy=True)

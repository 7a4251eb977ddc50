"""Gradient checkpointing: of each layer only the input is kept, and the rest is computed again on the way back.

The layers are the UNet's residual blocks and its transformers, each with its part across time. diffusers' own switch
leaves these parts' activations where they are: 28 GiB of them for one clip of SVD's size, instead of 7.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from mv3d.model.unet import OrbitUNet

_LAYERS = ("SpatioTemporalResBlock", "TransformerSpatioTemporalModel")


def recompute_layers(network: nn.Module) -> None:
    """Save memory for a third more time, in all UNets within; other networks that know how to, do so themselves."""
    unets = [module for module in network.modules() if isinstance(module, OrbitUNet)]
    for unet in unets:
        for layer in unet.modules():
            if type(layer).__name__ in _LAYERS:
                # Nothing in them is drawn at random, so no random state needs to be put back.
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    for module in network.modules():
        if module not in unets and hasattr(module, "enable_gradient_checkpointing"):
            module.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]

"""How a model is kept while it works, as command lines ask for it; imports nothing heavy: it is in their help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["auto", "bf16", "fp16", "fp32"]
Offload = Literal["none", "model", "sequential"]


@dataclass(frozen=True)
class ModelOptions:
    """What fits a model to a machine. The docstrings are the command line's help."""

    dtype: Dtype = "auto"
    """Numbers that weights are kept in; auto: 16 bits for models of SVD's size, as they are published, else fp32."""
    offload: Offload = "none"
    """On a small GPU: only the network at work is there (model), or only its layer at work (sequential: slow)."""
    compile: bool = False
    """Let torch compile the UNet at its first use: minutes once, then less time a step; needs a compiler."""
    revision: str | None = None
    """Of a model on the hub: a branch, tag or commit."""

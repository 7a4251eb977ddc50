"""Where torch computes."""

from __future__ import annotations

from mv3d.errors import Mv3dError
from mv3d.options import Device


def pick_device(name: Device, *, sparse: bool = False) -> str:
    """Name torch's device; ``auto`` is the first that there is of CUDA, Metal and the CPU.

    With ``sparse`` the CPU takes Metal's place, which has no sparse matrices.

    Raises:
        Mv3dError: if this machine or this build of torch has no such device.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name != "auto" and not there[name]:
        raise Mv3dError(f"{name}: this machine or this build of torch has no such device; use cpu", argument="device")
    device = name if name != "auto" else next(device for device, is_there in there.items() if is_there)
    return "cpu" if sparse and device == "mps" else device

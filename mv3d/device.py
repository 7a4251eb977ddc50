"""Where torch computes."""

from __future__ import annotations

from mv3d.errors import Mv3dError
from mv3d.options import Device


def pick_device(name: Device) -> str:
    """Name torch's device; ``auto`` is the first that there is of CUDA, Metal and the CPU.

    Raises:
        Mv3dError: if this machine or this build of torch has no such device.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, is_there in there.items() if is_there)
    if not there[name]:
        raise Mv3dError(f"--device {name}: this machine or this build of torch has none; use --device cpu")
    return name

"""What this machine can do, and what to install for more (behind ``mv3d doctor``)."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mv3d
from mv3d.errors import Mv3dError

_GIB = 2**30

EXTRAS = {
    "mv3d web": (("gradio",), 'pip install ".[app]"'),
    "export to USD and USDZ": (("pxr",), 'pip install -c constraints.txt ".[usd]"'),
    "python -m finetune": (
        ("wandb", "webdataset", "kornia", "filelock"),
        'pip install -c constraints.txt -e ".[train]"',
    ),
    "python -m eval": (("jinja2", "pydantic", "collada"), 'pip install -c constraints.txt -e ".[eval]"'),
}
"""What wants packages of its own: which ones, and how they are had."""
EXTRAS_OF_CUDA = {
    "lift --method splats": (("gsplat",), "pip install gsplat"),
    "optimizer: adamw_8bit": (("bitsandbytes",), 'pip install -c constraints.txt -e ".[adam8bit]"'),
}

ORBIT_GIB = (
    ("as it is", 17.5),
    ("--decode-chunk 4", 7.9),
    ("--offload model --decode-chunk 4", 4.6),
    ("--offload sequential --decode-chunk 1", 1.8),
)
"""What SVD's orbit of 21 views of 576 px takes of a card in 16 bits, fastest first (benchmarks/sampling_memory.py)."""


@dataclass(frozen=True)
class Finding:
    """One line: what there is, and, if more is to be had, how."""

    name: str
    text: str
    advice: str | None = None


def examine() -> Iterator[Finding]:
    """Look at this machine, one thing after the other."""
    import torch

    yield Finding("mv3d", f"{mv3d.__version__}, Python {platform.python_version()}, {platform.system()}")
    yield _torch_build(torch)
    yield from _devices(torch)
    yield _numbers(torch)
    yield _memory()
    yield _compiler(torch)
    yield _blender()
    yield _weights()
    has_nerfstudio = shutil.which("ns-train") is not None
    how = None if has_nerfstudio else "install nerfstudio in an environment of its own; ns-train is to be on the PATH"
    yield Finding("lift --method nerfstudio", "ready" if has_nerfstudio else "ns-train missing", how)
    extras = EXTRAS | (EXTRAS_OF_CUDA if torch.cuda.is_available() else {})
    for use, (modules, how) in extras.items():
        missing = [module for module in modules if find_spec(module) is None]
        text = f"{', '.join(missing)} missing" if missing else "ready"
        yield Finding(use, text, f"{how}, in a clone" if missing else None)


# -------------------------------------------------------------------------------------------------
# Torch and its devices.


def _torch_build(torch: Any) -> Finding:
    build = "CUDA " + torch.version.cuda if torch.version.cuda else "ROCm" if torch.version.hip else "CPUs"
    if sys.platform == "darwin":
        build += " and Metal"
    has_card = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    advice = None
    if has_card and not torch.cuda.is_available():
        mend = "install PyTorch for CUDA (pytorch.org, Get started)"
        if torch.version.cuda is not None:
            mend = f"it may be too old for CUDA {torch.version.cuda}: bring the driver up to date"
        advice = f"there is an NVIDIA driver that this build does not use: {mend}"
    return Finding("torch", f"{torch.__version__}, built for {build}", advice)


def _devices(torch: Any) -> Iterator[Finding]:
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, whole = (size / _GIB for size in torch.cuda.mem_get_info(index))
        name = torch.cuda.get_device_name(index)
        yield Finding(f"cuda:{index}", f"{name}, {whole:.0f} GiB, {free:.1f} free; SVD's size: {fitting_options(free)}")
    if torch.backends.mps.is_available():
        yield Finding("mps", "Metal, which shares the memory below")
    yield Finding("cpu", f"{platform.processor() or platform.machine()}, {_cores()} cores for this process")


def fitting_options(free_gib: float) -> str:
    """How an orbit of SVD's size is asked for on a card with so much memory, a tenth and a GiB of which it keeps."""
    needed = [1.1 * gib + 1 for _, gib in ORBIT_GIB]
    fits = next((options for (options, _), gib in zip(ORBIT_GIB, needed, strict=True) if gib <= free_gib), None)
    return fits or f"too little for 21 views of 576 px, which want {min(needed):.1f} free; ask for fewer views"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _numbers(torch: Any) -> Finding:
    """How fast products are, by the types of numbers; measured, since that is what counts."""
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    rates = {}
    for name in ("float32", "float16", "bfloat16"):
        rates[name] = _rate(torch, device, getattr(torch, name))
    text = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    advice = None
    if device == "cpu" and rates["bfloat16"] < rates["float32"]:
        advice = (
            "no fast 16 bits here: mv3d keeps weights in them and multiplies in float32; train with bfloat16: false"
        )
    elif device == "cuda" and torch.cuda.get_device_capability() < (8, 0):
        advice = "no BF16 on this card: take fp16, which is what --dtype auto takes"
    return Finding("products", f"{text} GFLOP/s {'a core' if device == 'cpu' else 'on ' + device}", advice)


def _rate(torch: Any, device: str, dtype: Any) -> float:
    """Floating-point operations per second of a product, in billions; of a CPU those of one core."""
    side, clock = (384, time.process_time) if device == "cpu" else (4096, time.perf_counter)
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(2):
        started = clock()
        float((a @ a)[0, 0])  # waits for it
        best = min(best, clock() - started)
    return 2 * side**3 / best / 1e9


def _memory() -> Finding:
    import psutil

    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.home())
    text = f"{memory.total / _GIB:.1f} GiB, {memory.available / _GIB:.1f} free; disk {disk.free / _GIB:.0f} GiB free"
    return Finding("memory", text)


def _compiler(torch: Any) -> Finding:
    if torch.cuda.is_available():
        ready, needed = find_spec("triton") is not None, "Triton (pip install triton)"
    else:
        ready = shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")) is not None
        needed = "a C++ compiler (g++; on Windows MSVC)"
    return Finding("torch.compile", "ready" if ready else "no compiler", None if ready else f"install {needed}")


# -------------------------------------------------------------------------------------------------
# What lies beside it.


def _blender() -> Finding:
    from mv3d.blender import find_blender

    try:
        return Finding("Blender", find_blender()[0])
    except Mv3dError as error:
        return Finding("Blender", "not usable: no .blend files, no lit pictures of meshes", str(error))


def _weights() -> Finding:
    from huggingface_hub import constants

    found = [f"{name} ({size / 1e9:.1f} GB)" for name, size in cached_models()]
    text = ", ".join(["mini", *found])
    advice = (
        None if found else "mv3d orbit photo.jpg --model stabilityai/sv3d downloads SV3D's, see docs/real-weights.md"
    )
    return Finding("weights", f"{text}; the hub's cache is {constants.HF_HUB_CACHE}", advice)


def cached_models() -> list[tuple[str, int]]:
    """Names and bytes of what ``--model`` takes of the hub's cache, which is not asked whether there is newer."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return []
    found = []
    for repository in sorted(cache.repos, key=lambda one: one.repo_id):
        if repository.repo_type != "model":
            continue
        for file in {file.file_path.name: file for one in repository.revisions for file in one.files}.values():
            at_root = file.file_path.parent.parent.name == "snapshots"
            if at_root and file.file_name.startswith(("sv3d", "svd")) and file.file_name.endswith(".safetensors"):
                found.append((f"{repository.repo_id}/{file.file_name}", file.size_on_disk))
            elif at_root and file.file_name == "model_index.json" and _is_video_model(file.file_path):
                found.append((repository.repo_id, repository.size_on_disk))
    return sorted(found)


def _is_video_model(index: Path) -> bool:
    try:
        return json.loads(index.read_text()).get("_class_name") == "StableVideoDiffusionPipeline"
    except (OSError, ValueError, AttributeError):
        return False

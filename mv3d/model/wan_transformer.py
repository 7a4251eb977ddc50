"""The video transformer of Wan 2.2 TI2V-5B with the rays of every view's pixels as further input channels.

Four views lie in one latent (`mv3d.model.wan_video`), so a pose that is added to a latent's time embedding, as SVD's
network has it, would be that of none of them. Plücker rays are channels beside the latents instead, as other networks
that follow cameras have them (CameraCtrl, He et al. 2024): of each cell, the rays of all four views.

With Wan's own config the class holds Wan's parameters, names and all, plus the pose columns of one matrix; while these
are zero it computes Wan bit for bit, for the same reason as `mv3d.model.unet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin as ModelMixin  # from_pretrained looks it up beside the class
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from mv3d.errors import Mv3dError
from mv3d.model.surgery import widen_columns
from mv3d.model.weights import load_strict, make_empty, weights_to_come

STOCK_TRANSFORMER = "WanTransformer3DModel"
"""diffusers' name of the class."""
POSE_CHANNELS = 24
"""Direction and moment of the rays of four views."""
KEPT_IN_FLOAT32: tuple[str, ...] = tuple(WanTransformer3DModel._keep_in_fp32_modules)
"""What diffusers, too, leaves in float32 of a network in 16 bits: time embedding, modulation, norms."""

_OF_OTHER_WANS = ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len")


class OrbitTransformer(WanTransformer3DModel):
    """Wan's transformer, whose input has ``pose_channels`` more channels, behind ``in_channels``; 0 for none.

    The arguments beyond keep their meaning; their defaults are TI2V-5B's.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 24,
        attention_head_dim: int = 128,
        in_channels: int = 48,
        out_channels: int = 48,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 14336,
        num_layers: int = 30,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        rope_max_seq_len: int = 1024,
        pose_channels: int = POSE_CHANNELS,
    ) -> None:
        # Unchanged values: the parent registers its config again, over ours.
        super().__init__(
            patch_size=tuple(patch_size),
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            rope_max_seq_len=rope_max_seq_len,
        )
        if pose_channels:
            width = num_attention_heads * attention_head_dim
            self.patch_embedding = _WidenedPatches(in_channels, pose_channels, width, tuple(patch_size))

    @property
    def pose_matrix(self) -> Tensor:
        """The weight that has the pose columns, (out, in, 1, rows, columns)."""
        return self.patch_embedding.weight

    @property
    def pose_start(self) -> int:
        """How many columns stand before them."""
        return self.config["in_channels"]


class _WidenedPatches(nn.Conv3d):
    """Wan's embedding of patches with further input channels."""

    def __init__(self, channels: int, added_channels: int, width: int, patch_size: tuple[int, ...]) -> None:
        super().__init__(channels + added_channels, width, kernel_size=patch_size, stride=patch_size)  # pyright: ignore
        self.channels = channels

    def forward(self, sample: Tensor) -> Tensor:
        first, added = sample.tensor_split([self.channels], dim=1)
        weight, added_weight = self.weight.tensor_split([self.channels], dim=1)
        base = F.conv3d(first.contiguous(), weight.contiguous(), self.bias, self.stride)
        return base + F.conv3d(added, added_weight, stride=self.stride)


# -------------------------------------------------------------------------------------------------
# Pose columns of weights that had none.


def with_pose_columns(
    state_dict: Mapping[str, Tensor], config: Mapping[str, Any], pose_channels: int = POSE_CHANNELS
) -> OrbitTransformer:
    """Make a network of Wan's weights that computes what Wan does until its new, zero columns are trained.

    Args:
        state_dict: of a stock ``WanTransformer3DModel``; the new network takes its tensors over, uncopied.
        config: of the same; keys that start with an underscore are ignored.
        pose_channels: see `OrbitTransformer`.

    Raises:
        Mv3dError: if the weights do not belong to the config, or are of another kind of Wan.
    """
    kept = stock_arguments(config)
    shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    stock = make_empty(lambda known: OrbitTransformer(**known, pose_channels=0), kept, shapes, "the config of Wan")
    load_strict(stock, state_dict, "Wan's transformer")
    state = stock.state_dict()
    state["patch_embedding.weight"] = widen_columns(state["patch_embedding.weight"], pose_channels)
    with weights_to_come():
        network = OrbitTransformer(**kept, pose_channels=pose_channels)
    load_strict(network, state, "Wan's widened transformer")
    return network


def stock_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config of diffusers' class means for `OrbitTransformer`.

    Raises:
        Mv3dError: if it is of a Wan that sees the picture by other ways than TI2V-5B does.
    """
    others = [key for key in _OF_OTHER_WANS if config.get(key) is not None]
    if others:
        raise Mv3dError(
            f"this Wan has {others[0]} {config[others[0]]}, so it sees pictures in another way than the one that mv3d "
            "takes, Wan 2.2 TI2V-5B"
        )
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in _OF_OTHER_WANS}


def posed(network: OrbitTransformer, *, poses: bool) -> OrbitTransformer:
    """The network with pose columns, or without; it is not to be used afterwards, unless it is what is returned.

    Raises:
        Mv3dError: if trained columns would be lost.
    """
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    has = config.pop("pose_channels")
    if poses == bool(has):
        return network
    state, first = network.state_dict(), config["in_channels"]
    weight = state["patch_embedding.weight"]
    if not poses and bool(weight[:, first:].any()):
        raise Mv3dError("this base keeps its trained poses: leave conditions as they are, or begin with Wan")
    state["patch_embedding.weight"] = weight[:, :first].contiguous()
    return with_pose_columns(state, config, POSE_CHANNELS if poses else 0)

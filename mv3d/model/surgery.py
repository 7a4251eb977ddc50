"""Stock SVD weights into a network with more inputs, which at first ignores them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor

from mv3d.errors import Mv3dError
from mv3d.model.unet import OrbitUNet
from mv3d.model.weights import load_strict, make_empty, weights_to_come

_FPS_AND_MOTION = (6.0, 127.0)  # what SVD's own sampling script passes


def from_stock(
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    pose_embed_dim: int = 512,
    coarse_channels: int = 0,
    cond_aug_only: bool = False,
    input_last: bool = False,
) -> OrbitUNet:
    """Make an `OrbitUNet` that computes what the stock network does until its new, zero columns are trained.

    Args:
        state_dict: of a stock ``UNetSpatioTemporalConditionModel``; the new network takes its tensors over, uncopied.
        config: of the same; keys that start with an underscore are ignored.
        pose_embed_dim: see `OrbitUNet`.
        coarse_channels: see `OrbitUNet`.
        cond_aug_only: keep, of SVD's three ids, only the noise added to the picture, as SV3D does; see `keep_cond_aug`.
        input_last: see `OrbitUNet`.

    Raises:
        Mv3dError: if the weights do not belong to the config.
    """
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    stock = make_empty(lambda config: OrbitUNet(**config, pose_embed_dim=0), kept, shapes, "the config of SVD's UNet")
    load_strict(stock, state_dict, "the stock UNet")
    state = stock.state_dict()
    if cond_aug_only:
        width = stock.config["addition_time_embed_dim"]
        state = keep_cond_aug(state, width)
        kept["projection_class_embeddings_input_dim"] = width
    for name, count in (("add_embedding.linear_1.weight", 2 * pose_embed_dim), ("conv_in.weight", coarse_channels)):
        state[name] = widen_columns(state[name], count)
    with weights_to_come():
        unet = OrbitUNet(**kept, pose_embed_dim=pose_embed_dim, coarse_channels=coarse_channels, input_last=input_last)
    load_strict(unet, state, "the widened UNet")
    return unet


def reconditioned(unet: OrbitUNet, *, poses: bool, cond_aug_only: bool, input_last: bool) -> OrbitUNet:
    """Give a network other conditions than it has; it computes what it did until its new, zero columns are trained.

    Args:
        unet: is not to be used afterwards, unless it is what is returned: nothing was to be changed.
        poses: have pose columns; trained ones are kept.
        cond_aug_only: see `from_stock`.
        input_last: see `OrbitUNet`.

    Raises:
        Mv3dError: if trained poses would be lost, or for a network with coarse views, which has its conditions.
    """
    config = {key: value for key, value in unet.config.items() if not key.startswith("_")}
    width, ids = config["addition_time_embed_dim"], config["projection_class_embeddings_input_dim"]
    ours = ("pose_embed_dim", "input_last", "coarse_channels", "coarse_mean")
    pose_width, was_last, coarse_channels, _ = (config.pop(key) for key in ours)
    cut = cond_aug_only and ids > width
    if poses == bool(pose_width) and not cut and input_last == was_last:
        return unet
    state = unet.state_dict()
    trained = state["add_embedding.linear_1.weight"][:, ids:]
    if coarse_channels or (bool(trained.any()) and not poses):
        what = "its coarse views" if coarse_channels else "its trained poses"
        raise Mv3dError(f"this base keeps {what}: leave conditions as they are, or begin with SVD")
    state["add_embedding.linear_1.weight"] = state["add_embedding.linear_1.weight"][:, :ids].contiguous()
    new = from_stock(
        state,
        config,
        pose_embed_dim=(pose_width or 2 * width) if poses else 0,
        cond_aug_only=cut,
        input_last=input_last,
    )
    if pose_width and poses:
        with torch.no_grad():
            new.add_embedding.linear_1.weight[:, width if cut else ids :] = trained
    return new


def keep_cond_aug(state_dict: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Cut SVD's ids [frames per second, motion, noise added to the picture] to the last.

    The other two are folded into the bias at the values SVD is sampled with, so the function stays SVD's there.

    Args:
        state_dict: of an SVD UNet.
        width: columns of one id.
    """
    weight, bias = (state_dict[f"add_embedding.linear_1.{name}"] for name in ("weight", "bias"))
    if weight.shape[1] != 3 * width:
        raise Mv3dError(f"only SVD's 3 ids can be cut to 1; these weights have {weight.shape[1] / width:g}")
    sinusoids = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)(torch.tensor(_FPS_AND_MOTION))
    folded = bias.float() + weight[:, : 2 * width].float() @ sinusoids.flatten()
    return dict(state_dict) | {
        "add_embedding.linear_1.weight": weight[:, 2 * width :].contiguous(),
        "add_embedding.linear_1.bias": folded.to(bias.dtype),
    }


def widen_columns(weight: Tensor, count: int) -> Tensor:
    """Append ``count`` zero input columns (channels) to a weight (out, in, ...)."""
    zeros = weight.new_zeros(weight.shape[0], count, *weight.shape[2:])
    return torch.cat([weight, zeros], dim=1)

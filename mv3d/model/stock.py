"""Which of our models are stock Stable Video Diffusion to diffusers' own pipeline, and what it wants beside them."""

from __future__ import annotations

from typing import Any

from mv3d.model.conditioning import CLIP_MEAN, CLIP_STD
from mv3d.model.unet import OrbitUNet

STOCK = "UNetSpatioTemporalConditionModel"
"""diffusers' name of the class."""

_OURS = ("pose_embed_dim", "coarse_channels", "coarse_mean", "input_last")
_CLIP_PX = 224

CLIP_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "crop_size": {"height": _CLIP_PX, "width": _CLIP_PX},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": list(CLIP_MEAN),
    "image_std": list(CLIP_STD),
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": _CLIP_PX},
}
"""``feature_extractor/preprocessor_config.json`` as SVD has it."""


def is_stock(unet: OrbitUNet) -> bool:
    """Whether a network has no inputs that SVD's has not, and the same order of frames."""
    return not any(unet.config[key] for key in _OURS)


def stock_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of such a network as diffusers' own class writes it."""
    return {key: value for key, value in config.items() if key not in _OURS} | {"_class_name": STOCK}

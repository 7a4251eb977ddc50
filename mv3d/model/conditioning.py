"""What the diffusion stage is told about the wanted orbit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mv3d.cameras import Camera
from mv3d.conventions import to_sv3d

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

# OpenAI's CLIP, as stored in its image processor.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


_OF_VIEWS = frozenset({"poses", "coarse_latents", "coarse_views"})  # conditions that single views have

VIEW_CHANNELS = 6
"""Of a coarse view: RGB, alpha, and how much of the colour is looked up in the picture, in front and elsewhere."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """The conditions of B clips of F frames."""

    image_latents: Float[Tensor, "B C H W"]
    """Latents of the input picture, (B, C, H, W), *not* multiplied by the autoencoder's scaling factor."""
    image_embedding: Float[Tensor, "B 1 D"]
    """(B, 1, D), see `embed_image`."""
    added_time_ids: Float[Tensor, "B n"]
    """(B, n) raw values, e.g. the noise level added to the input picture."""
    poses: Float[Tensor, "B F 2"] | None = None
    """(B, F, 2), see `poses_of`; None for a model without poses."""
    coarse_latents: Float[Tensor, "B F C H W"] | None = None
    """Latents of the coarse views, (B, F, C, H, W), as unscaled as ``image_latents``; None for a model without."""
    coarse_views: Float[Tensor, "B F 6 S S"] | None = None
    """The same views at full size, (B, F, `VIEW_CHANNELS`, S, S), see `mv3d.model.drawing`; for an autoencoder whose
    decoder sees views, and nobody else."""

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Conditions:
        """Move all tensors; angles and ids stay float32, since their sinusoids need the digits."""
        kept = {"added_time_ids", "poses"}
        return self._map(lambda name, value: value.to(device, torch.float32 if name in kept else dtype))

    def without_image(self) -> Conditions:
        """The unconditional half of classifier-free guidance: everything seen is zero, ids and poses stay."""
        return drop_conditions(self, torch.ones(len(self.image_latents), dtype=torch.bool))

    def joined(self, other: Conditions) -> Conditions:
        """The clips of both in one batch."""
        return self._map(lambda name, value: torch.cat([value, getattr(other, name)]))

    def turned(self, by: int) -> Conditions:
        """Move what belongs to single frames by so many places around the orbit, as `torch.roll` does."""
        return self._map(lambda name, value: value.roll(by, dims=1) if name in _OF_VIEWS else value)

    def of_views(self, views: Sequence[int]) -> Conditions:
        """The conditions of clips of some of the views, in the order given."""
        return self._map(lambda name, value: value[:, list(views)] if name in _OF_VIEWS else value)

    def _map(self, change: Callable[[str, Tensor], Tensor]) -> Conditions:
        present = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(self, **{name: change(name, value) for name, value in present.items()})


def drop_conditions(conditions: Conditions, dropped: Bool[Tensor, " B"]) -> Conditions:
    """Zero picture latents, coarse latents and embedding of the clips marked in ``dropped`` (B,) (SVD's dropout)."""

    def keep(value: Tensor) -> Tensor:
        return value.masked_fill(dropped.to(value.device).view(-1, *[1] * (value.ndim - 1)), 0)

    coarse = conditions.coarse_latents
    return replace(
        conditions,
        image_latents=keep(conditions.image_latents),
        image_embedding=keep(conditions.image_embedding),
        coarse_latents=None if coarse is None else keep(coarse),
    )


def poses_of(cameras: Sequence[Camera], input_index: int = 0) -> Float[Tensor, "F 2"]:
    """SV3D's absolute polar angle and azimuth relative to the input view, radians, (F, 2)."""
    polar, azimuth = to_sv3d(cameras, input_index)
    return torch.stack([torch.from_numpy(polar), torch.from_numpy(azimuth)], dim=-1).float()


# -------------------------------------------------------------------------------------------------
# The image embedding.


def embed_image(encoder: CLIPVisionModelWithProjection, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 D"]:
    """Embed RGB pictures (B, 3, H, W) in [0, 1] as one token each, (B, 1, D)."""
    size_px = encoder.config.image_size
    assert isinstance(size_px, int)
    pixels = clip_pixels(pictures, size_px)
    return encoder(pixels.to(encoder.device, encoder.dtype)).image_embeds[:, None]


def clip_pixels(pictures: Float[Tensor, "B 3 H W"], size_px: int) -> Float[Tensor, "B 3 {size_px} {size_px}"]:
    """Resize (B, 3, H, W) in [0, 1] as SVD does, Gaussian then bicubic in [-1, 1], and normalise as CLIP does."""
    resized = _antialiased_resize(pictures * 2 - 1, size_px) / 2 + 0.5
    mean, std = pictures.new_tensor(CLIP_MEAN), pictures.new_tensor(CLIP_STD)
    return (resized - mean[:, None, None]) / std[:, None, None]


def _antialiased_resize(pictures: Tensor, size_px: int) -> Tensor:
    """What kornia calls antialias (sigma (factor - 1) / 2, kernel 4 sigma): SVD was trained behind it."""
    channels = pictures.shape[1]
    for dim in (2, 3):
        sigma = max((pictures.shape[dim] / size_px - 1) / 2, 1e-3)
        half = int(max(4 * sigma, 3)) // 2
        offsets = torch.arange(-half, half + 1, dtype=pictures.dtype, device=pictures.device)
        weights = torch.exp(-((offsets / sigma) ** 2) / 2)
        kernel = (weights / weights.sum()).view([-1, 1] if dim == 2 else [1, -1]).expand(channels, 1, -1, -1)
        padding = (0, 0, half, half) if dim == 2 else (half, half, 0, 0)
        pictures = F.conv2d(F.pad(pictures, padding, mode="reflect"), kernel, groups=channels)
    return F.interpolate(pictures, size=(size_px, size_px), mode="bicubic", align_corners=True)

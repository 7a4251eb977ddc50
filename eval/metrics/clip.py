"""CLIP-S: the cosine between CLIP's embeddings of a predicted and a true picture.

Radford et al. 2021; as a score of generated views: SVD (Blattmann et al. 2023), SV3D (Voleti et al. 2024).
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mv3d.errors import Mv3dError

CLIP_VARIABLE = "MV3D_CLIP"
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's, of all CLIPs


class ClipScore(nn.Module):
    """The image side of a CLIP model, frozen; ``name`` is reported with the score."""

    key = "clip_s"
    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, side_px: int, name: str) -> None:
        """Wrap a ``CLIPVisionModelWithProjection``, which takes pictures of ``side_px``."""
        super().__init__()
        self.encoder, self.side_px, self.name = encoder, side_px, name
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Unit embeddings of pictures (B, 3, H, W) in [0, 1]: resized by the shorter side, then cropped square."""
        height, width = pictures.shape[-2:]
        shorter = min(height, width)
        size = (height * self.side_px // shorter, width * self.side_px // shorter)  # rounded down, as published
        x = F.interpolate(pictures, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        top, left = (size[0] - self.side_px) // 2, (size[1] - self.side_px) // 2
        x = x[..., top : top + self.side_px, left : left + self.side_px]
        embedding = self.encoder(pixel_values=(x - self.mean) / self.std).image_embeds
        return [F.normalize(embedding, dim=-1)]

    def compare(self, pred: list[Tensor], truth: list[Tensor]) -> Tensor:
        """Cosines (B,)."""
        return (pred[0] * truth[0]).sum(dim=-1)


def load_clip(name_or_folder: str) -> ClipScore:
    """Load a CLIP model from a folder (``$MV3D_CLIP`` first), or by name from the Hugging Face cache; never downloads.

    Raises:
        Mv3dError: if it is not there, or is no CLIP model.
    """
    from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

    where = os.environ.get(CLIP_VARIABLE) or name_or_folder
    try:
        config = CLIPConfig.from_pretrained(where, local_files_only=True)
        vision = config.vision_config
        assert isinstance(vision, CLIPVisionConfig)
        assert isinstance(vision.image_size, int)
        setattr(vision, "projection_dim", config.projection_dim)  # noqa: B010  (not among the class's annotations)
        encoder = CLIPVisionModelWithProjection.from_pretrained(where, config=vision, local_files_only=True)
    except (OSError, ValueError, AssertionError) as error:
        what = "is no CLIP model" if Path(where).is_dir() else "is not on this machine"
        raise Mv3dError(
            f"{where} {what}; give its folder in {CLIP_VARIABLE}, or fetch it once with: hf download {name_or_folder}"
        ) from error
    assert isinstance(encoder, nn.Module)
    return ClipScore(encoder, vision.image_size, name_or_folder)

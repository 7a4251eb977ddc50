"""More views than a model makes at once: clips of its own length that agree, because every view lies in two of them.

A clip takes every so manieth view of the whole path, behind the picture's own, so that its views stand about as far
apart as those that the model was trained on; the next clip takes the next ones. What a model makes of a view changes
smoothly from clip to clip, and jumps where a view moves on to the next slot. So there are two sets of clips, shifted by
half a slot, and each counts least where it jumps: at every noise level the estimates of a view are mixed (as in
MultiDiffusion, Bar-Tal et al. 2023), and so is the noise that they begin with. There is no seam, not even where a path
closes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mv3d.model.conditioning import Conditions

_SINGLE = 1.5  # times a model's own number of views that are still one clip


@dataclass(frozen=True, eq=False)
class LongClip:
    """How views are divided; the first is the picture's own, which begins every clip."""

    clips: tuple[tuple[int, ...], ...]
    """Indices of each clip's views."""
    weights: tuple[tuple[float, ...], ...]
    """How much each clip counts for its views."""
    slots: Float[Tensor, "F S"]
    """Shares of the slots' noise in the views' (F, S); their squares add up to 1."""

    def noise(
        self, channels: int, height: int, width: int, generator: torch.Generator
    ) -> Float[Tensor, "1 F {channels} {height} {width}"]:
        """Unit noise of all views, alike where views are alike."""
        drawn = torch.randn(self.slots.shape[1], channels, height, width, generator=generator)
        return torch.einsum("fs,schw->fchw", self.slots, drawn)[None]

    def mixed(
        self, conditions: Conditions, denoise_clip: Callable[[Tensor, Tensor, Conditions], Tensor]
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Denoise all views, clip by clip; ``denoise_clip`` gets a clip's noisy views, noise level and conditions."""
        unseen = replace(conditions, coarse_views=None)  # large, and for the decoder
        parts = [unseen.of_views(clip) for clip in self.clips]

        def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
            total, total_weight = torch.zeros_like(noisy, dtype=torch.float32), noisy.new_zeros(noisy.shape[1])
            for clip, weights, own in zip(self.clips, self.weights, parts, strict=True):
                at, weight = torch.tensor(clip, device=noisy.device), noisy.new_tensor(weights)
                denoised = denoise_clip(noisy[:, at], sigma, own)
                total.index_add_(1, at, denoised.float() * weight.view(1, -1, 1, 1, 1))
                total_weight.index_add_(0, at, weight)
            return total / total_weight.view(1, -1, 1, 1, 1)

        return denoise


def divide_views(num_views: int, clip_length: int) -> LongClip | None:
    """Divide ``num_views`` views, the picture's own first, into clips of ``clip_length``; None if they are one clip."""
    num_slots, others = clip_length - 1, num_views - 1
    if num_slots < 2 or num_views <= _SINGLE * clip_length:
        return None
    place = (torch.arange(others) + 0.5) * (num_slots / others)  # of each view, in slots
    slots = torch.zeros(num_views, num_slots + 1)
    slots[0, 0] = 1
    clips, weights = [], []
    for shift in (0.0, 0.5):
        slot = (place + shift).floor()
        weight = 1 - 2 * (place + shift - slot - 0.5).abs()
        slot = slot.long() % num_slots  # the path is taken for closed: its last views stand beside the first
        slots[torch.arange(1, num_views), 1 + slot] = weight.sqrt()
        # Views of a slot in the path's order, also where the slot spans the path's ends.
        members = [torch.nonzero(slot == k)[:, 0].tolist() for k in range(num_slots)]
        if shift:
            first = members[0]
            members[0] = [k for k in first if k >= others // 2] + [k for k in first if k < others // 2]
        for k in range(max(map(len, members))):
            chosen = [views[min(k, len(views) - 1)] for views in members]
            clips.append((0, *(view + 1 for view in chosen)))
            weights.append((1.0, *weight[chosen].clamp(min=1e-3).tolist()))
    return LongClip(tuple(clips), tuple(weights), slots / slots.square().sum(dim=1, keepdim=True).sqrt())

"""A decoder of latents that is also shown the view, roughly as it should come out, at full size."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.vae import Decoder
from torch import Tensor, nn

from mv3d.model.conditioning import VIEW_CHANNELS

_WIDTHS = (16, 32, 64)  # of what is seen at full, half and quarter size


class ViewDecoder(Decoder):
    """Stable Diffusion's decoder whose three finest levels see a coarse view (`mv3d.model.drawing`).

    Features of it are added where each level begins, by projections that are zero before training (ControlNet: Zhang et
    al. 2023, section 3.1), and at the end a learned share of each pixel is the coarse view's own colour. Untrained, or
    shown nothing, it is the plain decoder.
    """

    def __init__(self, in_channels: int, block_out_channels: tuple[int, ...], norm_num_groups: int) -> None:
        levels = len(block_out_channels)
        super().__init__(
            in_channels=in_channels,
            out_channels=4,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=block_out_channels,
            layers_per_block=1,
            norm_num_groups=norm_num_groups,
            mid_block_add_attention=False,
        )
        seen = min(len(_WIDTHS), levels)
        finest = block_out_channels[0]
        entries = (VIEW_CHANNELS, *_WIDTHS)
        self.view_convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(entries[k], _WIDTHS[k], 3, stride=2 if k else 1, padding=1),
                nn.SiLU(),
                nn.Conv2d(_WIDTHS[k], _WIDTHS[k], 3, padding=1),
                nn.SiLU(),
            )
            for k in range(seen)
        )
        # A level begins with what the next coarser one ends with.
        entering = (*block_out_channels[1:], block_out_channels[-1])
        self.view_projections = nn.ModuleList(
            nn.Conv2d(width, channels, 1) for width, channels in zip(_WIDTHS[:seen], entering, strict=False)
        )
        self.view_share = nn.Conv2d(finest, 1, 3, padding=1)
        with torch.no_grad():
            for layer in (*self.view_projections, self.view_share):
                for parameter in layer.parameters():
                    parameter.zero_()

    def forward(
        self, sample: Tensor, latent_embeds: Tensor | None = None, view: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Decode latents (N, C, h, w), beside coarse views (N, 6, H, W) in [-1, 1] of the size that comes out.

        Returns frames (N, 4, H, W), and if it sees views also the share of each pixel that is theirs, (N, 1, H, W).
        """
        if view is None:
            return super().forward(sample, latent_embeds)
        added: list[Tensor] = []
        for convolve, project in zip(self.view_convs, self.view_projections, strict=True):
            view = convolve(view)
            added.append(project(view))
        x = self.mid_block(self.conv_in(sample))
        for k, block in zip(reversed(range(len(self.up_blocks))), self.up_blocks, strict=True):  # 0 is the finest
            x = block(x + added[k] if k < len(added) else x)
        x = self.conv_act(self.conv_norm_out(x))
        return self.conv_out(x), self.view_share(x)

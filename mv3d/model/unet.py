"""The video UNet of Stable Video Diffusion with camera poses per frame and, if wanted, coarse views as a further input.

With SVD's own config the class holds SVD's parameters, names and all, plus the pose columns of one matrix; while these
are zero it computes SVD bit for bit. Added inputs are therefore separate products that are summed (x + 0 is exact), not
longer dot products, whose order of summation would differ.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin as ModelMixin  # from_pretrained looks it up beside the class
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from mv3d.errors import Mv3dError

SVD_BLOCK_CHANNELS = (320, 640, 1280, 1280)
SVD_HEADS = (5, 10, 20, 20)


class OrbitUNet(UNetSpatioTemporalConditionModel, PeftAdapterMixin):
    """SVD's UNet, conditioned on polar angle and azimuth of every frame as SV3D is (SV3D, section 3).

    The vector [ids: ``addition_time_embed_dim`` each; polar: ``pose_embed_dim``; azimuth: ``pose_embed_dim``] of
    sinusoids goes through ``add_embedding`` frame by frame and is added to the time embedding.

    Args (beyond those of the stock class, which keep their meaning):
        in_channels: noisy latents and latents of the input picture; SVD's 8.
        projection_class_embeddings_input_dim: width of the ids alone, as in SVD's own config (3 x 256; SV3D 1 x 256).
        pose_embed_dim: width of each angle's sinusoids; 0 for a model without poses.
        coarse_channels: further input channels, behind ``in_channels``, for latents of coarse views.
        coarse_mean: diffuse the deviation from the coarse views (see `Denoiser`); for networks trained from scratch,
            since SVD's weights expect the latents themselves.
        input_last: the input picture's view is the last frame, as SV3D has it, not the first (see `Denoiser`).

    Raises:
        Mv3dError: for SVD's widths with other numbers of heads, which would load and compute nonsense.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlockSpatioTemporal",) * 3 + ("DownBlockSpatioTemporal",),
        up_block_types: tuple[str, ...] = ("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * 3,
        block_out_channels: tuple[int, ...] = SVD_BLOCK_CHANNELS,
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int = 2,
        cross_attention_dim: int = 1024,
        transformer_layers_per_block: int = 1,
        num_attention_heads: int | tuple[int, ...] = SVD_HEADS,
        num_frames: int = 25,
        pose_embed_dim: int = 512,
        coarse_channels: int = 0,
        coarse_mean: bool = False,
        input_last: bool = False,
    ) -> None:
        assert coarse_channels or not coarse_mean, "there are no coarse views to be the mean"
        heads = num_attention_heads if isinstance(num_attention_heads, int) else tuple(num_attention_heads)
        if tuple(block_out_channels) == SVD_BLOCK_CHANNELS and heads != SVD_HEADS:
            raise Mv3dError(f"num_attention_heads {heads} do not fit SVD's widths; its weights need {SVD_HEADS}")
        # Unchanged values: the parent registers its config again, over ours.
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            addition_time_embed_dim=addition_time_embed_dim,
            projection_class_embeddings_input_dim=projection_class_embeddings_input_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            num_attention_heads=num_attention_heads,
            num_frames=num_frames,
        )
        if coarse_channels:
            self.conv_in = _WidenedConv(in_channels, coarse_channels, block_out_channels[0])
        if pose_embed_dim:
            self.pose_proj = Timesteps(pose_embed_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.add_embedding = _FrameEmbedding(
            projection_class_embeddings_input_dim, 2 * pose_embed_dim, 4 * block_out_channels[0]
        )

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
        pose: Tensor | None = None,
    ) -> Tensor:
        """Predict F of the preconditioned denoiser.

        Args:
            sample: (B, F, C, H, W) scaled noisy latents, picture latents and coarse latents, C as configured.
            timestep: (B,) c_noise, one per clip.
            encoder_hidden_states: (B, tokens, cross_attention_dim) embedding of the input picture.
            added_time_ids: (B, ids) raw values.
            pose: (B, F, 2) polar angle and azimuth in radians (see `mv3d.cameras.to_sv3d`); None without poses.

        Returns:
            (B, F, out_channels, H, W).
        """
        batch, frames = sample.shape[:2]
        assert timestep.shape == (batch,), f"one noise level per clip: {tuple(timestep.shape)} for {batch} clips"
        assert (pose is not None) == bool(self.config["pose_embed_dim"]), "poses are given if and only if configured"

        time = self.time_embedding(self.time_proj(timestep).to(sample.dtype))
        added = self.add_embedding(self._added_vector(added_time_ids, pose).to(sample.dtype))
        embedding = (time[:, None] + added).expand(-1, frames, -1).flatten(0, 1)
        context = encoder_hidden_states.repeat_interleave(frames, dim=0)
        video = torch.zeros(batch, frames, dtype=sample.dtype, device=sample.device)  # "image only" is false throughout

        hidden = self.conv_in(sample.flatten(0, 1))
        skips = [hidden]
        for block in self.down_blocks:
            hidden, kept = block(hidden, embedding, **_context(block, context), image_only_indicator=video)
            skips.extend(kept)
        hidden = self.mid_block(hidden, embedding, encoder_hidden_states=context, image_only_indicator=video)
        for block in self.up_blocks:
            assert isinstance(block.resnets, nn.ModuleList)
            count = len(block.resnets)
            taken, skips = tuple(skips[-count:]), skips[:-count]
            size = skips[-1].shape[-2:] if skips else None  # odd sizes halve upward, so doubling alone would miss them
            hidden = block(
                hidden,
                res_hidden_states_tuple=taken,
                temb=embedding,
                **_context(block, context),
                upsample_size=size,
                image_only_indicator=video,
            )
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return hidden.unflatten(0, (batch, frames))

    @property
    def pose_matrix(self) -> Tensor:
        """The weight that has the pose columns, (out, in)."""
        return self.add_embedding.linear_1.weight

    @property
    def pose_start(self) -> int:
        """How many columns stand before them."""
        return self.config["projection_class_embeddings_input_dim"]

    def _added_vector(self, added_time_ids: Tensor, pose: Tensor | None) -> Tensor:
        """Sinusoids of ids and angles, (B, F, width), or (B, 1, width) where there are no poses."""
        ids = self.add_time_proj(added_time_ids.flatten()).reshape(added_time_ids.shape[0], 1, -1)
        if pose is None:
            return ids
        angles = self.pose_proj(pose.flatten()).reshape(*pose.shape[:2], -1)
        return torch.cat([ids.expand(-1, pose.shape[1], -1), angles], dim=-1)


class _FrameEmbedding(TimestepEmbedding):
    """SVD's ``add_embedding`` with added columns, applied to (B, F, width)."""

    def __init__(self, columns: int, added_columns: int, channels: int) -> None:
        super().__init__(columns, channels)
        if added_columns:
            self.linear_1 = _WidenedLinear(columns, added_columns, channels)

    def forward(self, vector: Tensor) -> Tensor:
        hidden = self.act(self.linear_1(vector))
        # Frame by frame, since a product over B x F rows need not round as SVD's over B rows does.
        return torch.stack([self.linear_2(frame) for frame in hidden.unbind(1)], dim=1)


class _WidenedLinear(nn.Linear):
    """A linear layer with further columns; the first ones read what all frames of a clip share."""

    def __init__(self, columns: int, added_columns: int, channels: int) -> None:
        super().__init__(columns + added_columns, channels)
        self.columns = columns

    def forward(self, vector: Tensor) -> Tensor:
        shared = F.linear(vector[:, 0, : self.columns], self.weight[:, : self.columns].contiguous(), self.bias)
        return shared[:, None] + F.linear(vector[..., self.columns :], self.weight[:, self.columns :])


class _WidenedConv(nn.Conv2d):
    """SVD's 3x3 input convolution with further input channels."""

    def __init__(self, channels: int, added_channels: int, out_channels: int) -> None:
        super().__init__(channels + added_channels, out_channels, kernel_size=3, padding=1)
        self.channels = channels

    def forward(self, sample: Tensor) -> Tensor:
        first, added = sample.tensor_split([self.channels], dim=1)
        weight, added_weight = self.weight.tensor_split([self.channels], dim=1)
        base = F.conv2d(first.contiguous(), weight.contiguous(), self.bias, padding=1)
        return base + F.conv2d(added, added_weight, padding=1)


def _context(block: nn.Module, context: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}

"""What lies on the device beside a UNet that is trained, for the estimate before a run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eval.metrics.lpips import Lpips
from finetune.config import RunConfig
from finetune.decoded_loss import DecodedLoss
from finetune.discriminator import PatchDiscriminator
from finetune.networks import make_autoencoder, make_image_encoder
from mv3d.model.autoencoder import decode, is_view_conditioned
from mv3d.model.coarse import CoarseNet
from mv3d.model.conditioning import VIEW_CHANNELS, embed_image


class Beside(nn.Module):
    """What is trained or used along with a UNet, and what it adds to a step's loss."""

    def __init__(self, trained: nn.Module | None = None, frozen: int = 0) -> None:
        super().__init__()
        self.trained = trained or nn.Module()
        self.frozen = frozen
        """Parameters that are only used."""

    def embedding(self, batch: int) -> Tensor | None:
        """The picture's, where its encoder is trained along."""
        return None

    def loss(self, denoised: Tensor) -> Tensor | float:
        """Of decoded frames of clips (B, F, C, h, w)."""
        return 0.0


class BesideDiffusion(Beside):
    """The mini model's image encoder, LPIPS, discriminator and decoder: see `finetune.stages.diffusion`."""

    def __init__(self, run: RunConfig) -> None:
        """Make all without storage if this is called with the meta device as torch's default."""
        config = run.diffusion
        assert run.autoencoder is not None
        assert run.coarse is not None
        encoder, discriminator = make_image_encoder(config, run.encoded_px), PatchDiscriminator()
        vae, lpips = make_autoencoder(run.autoencoder).requires_grad_(False), Lpips("alex")
        along: list[nn.Module] = [encoder]
        if config.train_decoder:
            along.append(vae.decoder.requires_grad_(True))
        if config.discriminator_weight:
            along.append(discriminator)
        coarse = CoarseNet(run.coarse.network).requires_grad_(False)
        frozen = [p for network in (vae, lpips, coarse) for p in network.parameters()]
        super().__init__(nn.ModuleList(along), sum(p.numel() for p in frozen if not p.requires_grad))
        self._config, self._picture_px = config, run.encoded_px
        self._encoder, self._vae = encoder, vae
        self._decoded_loss = DecodedLoss(config, vae, lpips, discriminator if config.discriminator_weight else None)

    def embedding(self, batch: int) -> Tensor:
        """Of pictures without numbers."""
        return embed_image(self._encoder, torch.empty(batch, 3, self._picture_px, self._picture_px))

    def loss(self, denoised: Tensor) -> Tensor | float:
        """As the stage adds it to EDM's."""
        config = self._config
        if not (config.lpips_weight or config.pixel_weight):
            return 0.0
        latents = denoised[:, : config.lpips_frames].flatten(0, 1)
        size_px = self._picture_px * self._vae.config["upscale_factor"]
        views = None
        if is_view_conditioned(self._vae):
            views = torch.empty(len(latents), VIEW_CHANNELS, size_px, size_px)
        output = decode(self._vae, latents, views).float() / 2 + 0.5
        seen = None if views is None else views[:, :4]
        found = self._decoded_loss.of_frames(output, torch.empty_like(output), seen)
        return found.frames if found.discriminator is None else found.frames + found.discriminator


def count_parameters(network: nn.Module) -> int:
    """How many numbers a network consists of."""
    return sum(p.numel() for p in network.parameters())

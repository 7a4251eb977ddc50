"""Training the small autoencoder: L1, LPIPS and a touch of KL on single frames (Rombach et al. 2022, appendix G).

One that enlarges sees frames at the resolution of the model and is compared with them as they were rendered.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.metrics.lpips import load_lpips
from finetune.config import RunConfig
from finetune.data import draw, validation_orbits
from finetune.networks import make_autoencoder
from finetune.pictures import augmented, save_rows, shrunk, to_tensor
from finetune.processes import WHOLE, MicroBatch
from mv3d.model.alpha import on_white
from mv3d.model.autoencoder import (
    RgbaAutoencoder,
    decode,
    decode_latents,
    encode,
    encode_frames,
    to_autoencoder,
)
from mv3d.model.weights import load_strict, load_weights
from mv3d.pack import Pack


class AutoencoderTraining:
    """Single frames of the training orbits in, themselves out."""

    divisible = False
    images_per_sample = 1

    def __init__(self, run: RunConfig, pack: Pack, device: torch.device | str = "cpu") -> None:
        config = run.autoencoder
        assert config is not None
        torch.manual_seed(run.seed)  # initial weights only
        self._autoencoder = make_autoencoder(config)
        nn.Module.to(self._autoencoder, device)  # the class annotates its own `to` wrongly
        self.network: nn.Module = self._autoencoder
        self._config = config
        self._device = device
        self._encoded_px = run.encoded_px
        self._pack = pack
        self._seed = run.seed
        self._orbits = pack.indices("train")
        self._validation = validation_orbits(pack, run.validation_objects)
        self._lpips = load_lpips("alex").to(device)

    def start_from(self, model: Path) -> None:
        """Take the initial weights from a model folder; what its decoder lacks, if it enlarges less, begins anew."""
        given, own = load_weights(model / "vae", torch.float32), self._autoencoder.state_dict()
        decoder = {key: value for key, value in own.items() if key.startswith("decoder.")}
        fitting = {k: v for k, v in given.items() if k not in decoder or v.shape == decoder[k].shape}
        load_strict(self._autoencoder, decoder | fitting, str(model / "vae"))

    def loss(self, step: int, generator: torch.Generator, part: MicroBatch = WHOLE) -> tuple[Tensor, dict[str, float]]:
        """Reconstruction of a batch of frames, each of another orbit."""
        views = self._pack.frames.shape[1]
        frames = np.stack([self._pack.frames[self._orbits[k // views], k % views] for k in self._chosen(step)])
        rgba = augmented(to_tensor(frames), generator).to(self._device)
        truth = to_autoencoder(rgba, 4)
        with torch.set_grad_enabled(not self._config.decoder_only):
            posterior = encode(self._autoencoder, to_autoencoder(shrunk(rgba, self._encoded_px), 4))
            latents = posterior.mode() if self._config.decoder_only else posterior.sample(generator)
        output = decode(self._autoencoder, latents)
        l1 = F.l1_loss(output, truth)
        lpips = self._lpips(output[:, :3] / 2 + 0.5, truth[:, :3] / 2 + 0.5).mean()
        kl = posterior.kl().mean()
        loss = l1 + self._config.lpips_weight * lpips + self._config.kl_weight * kl
        return loss, {"l1": l1.item(), "lpips": lpips.item(), "kl": kl.item()}

    def object_ids(self, step: int) -> list[str]:
        """Which objects a batch shows."""
        views = self._pack.frames.shape[1]
        return [self._pack.entries[self._orbits[k // views]].object_id for k in self._chosen(step)]

    def _chosen(self, step: int) -> np.ndarray:
        views = self._pack.frames.shape[1]
        return draw(self._config.loop.batch_size, len(self._orbits) * views, self._seed, step)

    @torch.no_grad()
    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        """PSNR (on white) and LPIPS of reconstructed validation frames."""
        assert isinstance(network, RgbaAutoencoder)
        if not self._validation:
            return {}
        truth = to_tensor(np.concatenate([self._pack.frames[k, ::7] for k in self._validation]))
        truth = truth.to(self._device)
        output = decode_latents(network, encode_frames(network, shrunk(truth, self._encoded_px)))
        save_rows([truth.cpu(), output.cpu()], sheet)
        shown = [on_white(x) for x in (truth, output)]
        mse = (shown[0] - shown[1]).square().mean(dim=(1, 2, 3))
        return {"psnr": (-10 * mse.log10()).mean().item(), "lpips": self._lpips(*shown).mean().item()}

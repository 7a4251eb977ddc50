"""The diffusion stage's losses on decoded frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from finetune import decoded_loss
from finetune.__main__ import main
from finetune.pictures import to_tensor
from finetune.read_config import load_config
from finetune.stages.diffusion import DiffusionTraining
from mv3d.model.alpha import to_autoencoder
from mv3d.pack import pack_orbits


class Decoding:
    """A decoder and an LPIPS that remember what they were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.latents: list[Tensor] = []
        self.made: list[Tensor] = []
        self.pairs: list[tuple[Tensor, Tensor]] = []
        decode = decoded_loss.decode

        def remembered(vae, latents, views):
            self.latents.append(latents)
            self.made.append(decode(vae, latents, views))
            return self.made[-1]

        pairs = self.pairs

        class Distance(torch.nn.Module):
            def forward(self, output: Tensor, truth: Tensor) -> Tensor:
                pairs.append((output, truth))
                return (output - truth).abs().mean(dim=(1, 2, 3))

        monkeypatch.setattr(decoded_loss, "decode", remembered)
        monkeypatch.setattr("finetune.stages.diffusion.load_lpips", lambda _: Distance())


@pytest.fixture
def make_stage(config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the stage on an untrained autoencoder and coarse network; what it decodes is in ``make_stage.decoding``."""

    def make(**weights: float) -> DiffusionTraining:
        stage = DiffusionTraining(load_config(config_file, [f"diffusion.{k}={v}" for k, v in weights.items()]), pack)
        decoding.latents.clear()  # what measuring or coarse views took
        return stage

    monkeypatch.setattr("finetune.stages.autoencoder.load_lpips", lambda _: torch.nn.Identity())
    for stage in ("autoencoder", "coarse"):
        assert main([str(config_file), "--stage", stage, "--set", f"{stage}.loop.steps=0"]) == 0
    config = load_config(config_file)
    pack = pack_orbits(config.data, config.run / "pack-32", 32)
    make.decoding = decoding = Decoding(monkeypatch)
    make.pack = pack
    return make


def loss_of(stage: DiffusionTraining) -> tuple[Tensor, dict[str, float]]:
    return stage.loss(0, torch.Generator().manual_seed(0))


def test_pixels_and_alpha_count_on_the_frames_that_lpips_sees(make_stage):
    """One decoding for all; their weights add to EDM's loss, which they do not change."""
    plain, nothing = loss_of(make_stage(lpips_weight=0))
    assert nothing == {}
    assert not make_stage.decoding.latents
    sharp, _ = loss_of(make_stage(lpips_weight=0.3))
    stage = make_stage(lpips_weight=0.3, pixel_weight=2)
    both, metrics = loss_of(stage)
    assert len(make_stage.decoding.latents) == 1
    (output, truth), (again, _) = make_stage.decoding.pairs
    assert torch.equal(output, again)
    assert output.shape == truth.shape == (2 * 2, 3, 32, 32)
    made = make_stage.decoding.made[-1] / 2 + 0.5
    assert torch.equal(made[:, :3], output)

    # The truth is frames of the batch's own orbits, on white.
    shown = set(stage.object_ids(0))
    orbits = [k for k, entry in enumerate(make_stage.pack.entries) if entry.object_id in shown]
    frames = torch.from_numpy(np.concatenate([make_stage.pack.frames[k] for k in orbits])).movedim(-1, 1) / 255
    with_alpha = to_autoencoder(frames, 4) / 2 + 0.5
    apart = (with_alpha[None, :, :3] - truth[:, None]).abs().amax(dim=(2, 3, 4))
    assert apart.amin(dim=1).max() < 1e-6

    squared = (made - with_alpha[apart.argmin(dim=1)]).square().mean()
    assert metrics["edm"] == plain.item()
    assert metrics["psnr_rgba"] == pytest.approx(-10 * np.log10(squared.item()))
    assert both.item() == pytest.approx(sharp.item() + 2 * squared.item(), rel=1e-6)
    assert loss_of(make_stage(lpips_weight=0, pixel_weight=2))[0].item() == pytest.approx(
        plain.item() + 2 * squared.item(), rel=1e-6
    )


def test_decoded_frames_are_compared_at_the_size_the_model_gives(config_file: Path, large: Path, monkeypatch):
    """The networks see frames of their own size, as where nothing is enlarged; the truth is as it was rendered."""
    enlarging = [
        "autoencoder.upscale_factor=2",
        f"data={large}",
        "diffusion.pixel_weight=1",
        "diffusion.lpips_weight=1",
    ]
    monkeypatch.setattr("finetune.stages.autoencoder.load_lpips", lambda _: torch.nn.Identity())
    for stage in ("autoencoder", "coarse"):
        settings = [*enlarging, f"{stage}.loop.steps=0"]
        assert main([str(config_file), "--stage", stage, *(w for s in settings for w in ("--set", s))]) == 0
    config = load_config(config_file, enlarging)
    decoding = Decoding(monkeypatch)
    pack = pack_orbits(config.data, config.run / "pack-64", 64)
    stage = DiffusionTraining(config, pack)
    decoding.latents.clear()
    loss_of(stage)
    assert decoding.latents[0].shape[-1] == 4
    output, truth = decoding.pairs[0]
    assert output.shape == truth.shape == (2 * 2, 3, 64, 64)
    frames = to_tensor(pack.frames[pack.indices("train")]).flatten(0, 1)
    on_white = to_autoencoder(frames, 3) / 2 + 0.5
    assert all((on_white - frame).abs().amax(dim=(1, 2, 3)).min() < 1e-6 for frame in truth)


def test_pixels_alone_move_the_weights(make_stage):
    plain, squared = (make_stage(lpips_weight=0, pixel_weight=weight) for weight in (0, 2))
    gradients = []
    for stage in (plain, squared):
        loss_of(stage)[0].backward()
        gradients.append(stage.network.unet.conv_out.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4 * gradients[0].abs().max()

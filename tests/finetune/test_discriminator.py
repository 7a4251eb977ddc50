"""The discriminator of decoded frames: whose gradients go where, and that it learns to see what LPIPS lets pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.__main__ import main
from finetune.checkpoint import latest_checkpoint
from finetune.discriminator import PatchDiscriminator, adaptive_weight


@pytest.fixture
def discriminator() -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator((8, 16, 16))


def _surfaces(seed: int) -> torch.Tensor:
    """Frames (4, 4, 64, 64) of one opaque colour each."""
    colours = torch.rand(4, 3, 1, 1, generator=torch.Generator().manual_seed(seed)) * 0.8
    return torch.cat([colours, torch.ones(4, 1, 1, 1)], dim=1).expand(4, 4, 64, 64)


def _nets(seed: int) -> torch.Tensor:
    """The same with a fine net of lighter lines."""
    lines = (torch.arange(64) % 6 == seed % 6).float()
    net = torch.maximum(lines[:, None], lines[None]) * 0.15
    return _surfaces(seed) + net * torch.tensor([1.0, 1.0, 1.0, 0.0]).view(4, 1, 1)


def test_each_side_is_taught_by_its_own_loss_alone(discriminator: PatchDiscriminator):
    made = _nets(0).clone().requires_grad_(True)
    discriminator.discriminator_loss(made, _surfaces(1)).backward()
    assert made.grad is None
    assert all(p.grad is not None for p in discriminator.parameters())
    assert all(layer.weight.grad.any() for layer in discriminator.layers if isinstance(layer, torch.nn.Conv2d))

    discriminator.zero_grad(set_to_none=True)
    discriminator.generator_loss(made).backward()
    assert made.grad is not None
    assert made.grad.any()
    assert all(p.grad is None for p in discriminator.parameters())
    assert all(p.requires_grad for p in discriminator.parameters())


def test_it_learns_to_see_nets_on_surfaces_it_has_not_seen(discriminator: PatchDiscriminator):
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=2e-3)
    for step in range(120):
        optimizer.zero_grad()
        discriminator.discriminator_loss(_nets(step), _surfaces(step + 1000)).backward()
        optimizer.step()
    with torch.no_grad():
        assert discriminator(_surfaces(5000)).mean() > 0.5
        assert discriminator(_nets(5001)).mean() < -0.5

    # Frames that follow its verdict come to be taken for true ones.
    made = _nets(5002).clone().requires_grad_(True)
    follow = torch.optim.Adam([made], lr=5e-3)
    for _ in range(60):
        follow.zero_grad()
        discriminator.generator_loss(made).backward()
        follow.step()
    with torch.no_grad():
        assert discriminator(made).mean() > discriminator(_nets(5002)).mean() + 1


def test_adaptively_weighted_both_pull_equally_hard(discriminator: PatchDiscriminator):
    made = _nets(0).clone().requires_grad_(True)
    known, generator = (made - _surfaces(1)).square().mean() * 7, discriminator.generator_loss(made) * 1000
    weight = adaptive_weight(known, generator, made)
    gradients = [torch.autograd.grad(loss, made, retain_graph=True)[0] for loss in (known, weight * generator)]
    torch.testing.assert_close(gradients[0].norm(), gradients[1].norm())


@pytest.mark.slow
def test_it_is_trained_along_and_stays_out_of_the_model(config_file: Path, tmp_path: Path, rendered: Path):
    def train(run: str, steps: int) -> None:
        given = [f"run={tmp_path / run}", f"data={rendered}", "autoencoder.loop.steps=1", "coarse.loop.steps=1"]
        given += ["diffusion.discriminator_weight=0.1", f"diffusion.loop.steps={steps}", "diffusion.loop.log_every=1"]
        assert main([str(config_file), *(word for text in given for word in ("--set", text))]) == 0

    def latest(run: str) -> dict[str, torch.Tensor]:
        folder = latest_checkpoint(tmp_path / run / "diffusion")
        assert folder is not None
        return load_file(folder / "network.safetensors")

    train("once", 3)
    train("resumed", 1)
    first = latest("resumed")
    train("resumed", 3)
    once, resumed = latest("once"), latest("resumed")
    names = {key for key in once if key.startswith("discriminator.")}
    assert names
    assert any(not torch.equal(first[key], resumed[key]) for key in names)
    assert all(torch.equal(once[key], resumed[key]) for key in once)  # bit for bit as without a stop
    lines = [json.loads(line) for line in (tmp_path / "once" / "diffusion" / "log.jsonl").read_text().splitlines()]
    assert all({"discriminator_loss", "generator_loss"} <= line.keys() for line in lines if "loss" in line)
    model = tmp_path / "once" / "model"
    assert not [key for path in model.rglob("*.safetensors") for key in load_file(path) if "discriminator" in key]

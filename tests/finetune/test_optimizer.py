"""Optimizers by name. AdamW's moments in 8 bits need an NVIDIA GPU, so a stand-in plays bitsandbytes."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from finetune.__main__ import main
from finetune.checkpoint import latest_checkpoint
from finetune.loop import learning_rate
from finetune.loop_config import LoopConfig
from finetune.muon import Muon, orthogonalised


class EightBits(torch.optim.Optimizer):
    """Keeps what bitsandbytes keeps: a Python number of steps and moments of one byte each."""

    made = SimpleNamespace(given=None)

    def __init__(self, parameters, **given) -> None:
        EightBits.made.given = given
        super().__init__(parameters, given)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(step=0, state1=torch.full_like(p, 128, dtype=torch.uint8))
                state["step"] += 1
                state["state1"] += (p.grad > 0).to(torch.uint8)
                p -= group["lr"] / state["step"] * (state["state1"].float() - 127)


@pytest.mark.slow
def test_moments_in_eight_bits_and_the_count_of_steps_go_on(write_recipe, tmp_path, monkeypatch):
    module = ModuleType("bitsandbytes")
    module.optim = SimpleNamespace(AdamW8bit=EightBits)
    monkeypatch.setitem(sys.modules, "bitsandbytes", module)
    once = _trained_at_once_and_in_two_legs("adamw_8bit", write_recipe, tmp_path)
    assert EightBits.made.given == {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.0}
    assert once["optimizer.0.step"].item() == 4
    assert once["optimizer.0.state1"].dtype == torch.uint8


@pytest.mark.slow
def test_muon_goes_on_bit_for_bit(write_recipe, tmp_path):
    once = _trained_at_once_and_in_two_legs("muon", write_recipe, tmp_path)
    kept = {key.rsplit(".", 1)[1] for key in once if key.startswith("optimizer.")}
    assert kept == {"momentum", "exp_avg", "exp_avg_sq", "step"}


def test_muon_refuses_slices_of_matrices(write_recipe, capsys):
    assert (
        main([str(write_recipe()), "--set", "diffusion.loop.optimizer=muon", "--set", "diffusion.loop.shard=true"]) == 2
    )
    assert "muon wants whole matrices" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("shape", [(24, 200), (200, 24)])
def test_muons_update_leaves_no_direction_behind(shape):
    badly_scaled = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 1, shape[1])
    left, _, right = torch.linalg.svd(badly_scaled, full_matrices=False)
    update = orthogonalised(badly_scaled)
    strengths = torch.linalg.svdvals(update)
    assert (strengths > 0.3).all()
    assert (strengths < 1.3).all()
    assert ((left @ right) * update).sum() / (left @ right).norm() / update.norm() > 0.95


def test_muon_walks_the_same_way_in_turned_coordinates():
    """AdamW does not: it scales each number by itself. Losses are those of one linear map, seen from two bases."""
    generator = torch.Generator().manual_seed(0)
    inputs, wanted = torch.randn(2, 128, 32, generator=generator)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=generator)).Q
    ends = []
    for seen in (inputs, inputs @ turn):
        weight = torch.nn.Parameter(torch.zeros(32, 32))
        optimizer = Muon([weight], 0.01, (0.9, 0.99), 0.0)
        for _ in range(20):
            optimizer.zero_grad()
            (seen @ weight.T - wanted).square().mean().backward()
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(ends[1] @ turn.T, ends[0], atol=0.02 * ends[0].norm().item(), rtol=0)


def _trained_at_once_and_in_two_legs(optimizer, write_recipe, tmp_path):
    """Everything that four steps leave, after checking that two and two steps leave the same."""
    chosen = ["--set", f"diffusion.loop.optimizer={optimizer}"]
    assert main([str(write_recipe("once")), *chosen]) == 0
    assert main([str(write_recipe("twice")), *chosen, "--set", "diffusion.loop.steps=2"]) == 0
    assert main([str(write_recipe("twice")), *chosen]) == 0
    once, twice = (
        {
            f"{name}.{key}": value
            for name in ("network", "ema", "optimizer")
            for key, value in load_file(latest_checkpoint(tmp_path / run / "diffusion") / f"{name}.safetensors").items()
        }
        for run in ("once", "twice")
    )
    assert once.keys() == twice.keys()
    assert all(torch.equal(value, twice[key]) for key, value in once.items())
    return once


def test_without_bitsandbytes_it_is_one_line(write_recipe, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert main([str(write_recipe()), "--set", "diffusion.loop.optimizer=adamw_8bit"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "finetune: optimizer adamw_8bit needs bitsandbytes: pip install -e '.[adam8bit]'"
    )


def test_the_learning_rate_ends_in_a_straight_line_to_zero():
    loop = LoopConfig(steps=100, batch_size=1, learning_rate=2.0, warmup_steps=10, cooldown_steps=19)
    rates = [learning_rate(loop, step) for step in range(loop.steps)]
    assert rates[9:81] == [2.0] * 72
    assert rates[80:] == pytest.approx([2.0 * left / 20 for left in range(20, 0, -1)])
    assert [learning_rate(replace(loop, cooldown_steps=0), step) for step in range(9, 100)] == [2.0] * 91

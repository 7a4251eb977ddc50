"""AdamW's moments in 8 bits, by a stand-in for bitsandbytes: that needs an NVIDIA GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import torch
from safetensors.torch import load_file

from finetune.__main__ import main
from finetune.checkpoint import latest_checkpoint


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


def test_moments_in_eight_bits_and_the_count_of_steps_go_on(write_recipe, tmp_path, monkeypatch):
    module = ModuleType("bitsandbytes")
    module.optim = SimpleNamespace(AdamW8bit=EightBits)
    monkeypatch.setitem(sys.modules, "bitsandbytes", module)
    eight = ["--set", "loop.adam_8bit=true"]
    assert main([str(write_recipe("once")), *eight]) == 0
    assert EightBits.made.given == {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.0}
    assert main([str(write_recipe("twice")), *eight, "--set", "loop.steps=2"]) == 0
    assert main([str(write_recipe("twice")), *eight]) == 0
    once, twice = (
        {
            f"{name}.{key}": value
            for name in ("network", "ema", "optimizer")
            for key, value in load_file(latest_checkpoint(tmp_path / run / "adapt") / f"{name}.safetensors").items()
        }
        for run in ("once", "twice")
    )
    assert once["optimizer.0.step"].item() == 4
    assert once["optimizer.0.state1"].dtype == torch.uint8
    assert once.keys() == twice.keys()
    assert all(torch.equal(value, twice[key]) for key, value in once.items())


def test_without_bitsandbytes_it_is_one_line(write_recipe, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert main([str(write_recipe()), "--set", "loop.adam_8bit=true"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "finetune: adam_8bit needs bitsandbytes: pip install -e '.[adam8bit]'"
    )

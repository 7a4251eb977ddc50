"""Started by accelerate's launcher, and traced for torch's compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from finetune.__main__ import main
from mv3d.model.unet import OrbitUNet

LORA = "lora: {rank: 2, alpha: 2, targets: temporal_attention}\n"


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "diffusion" / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_accelerates_launcher_starts_two_processes_that_train_as_one(write_recipe, tmp_path):
    rate = ["--set", "diffusion.loop.learning_rate=2e-5", "--set", "diffusion.loop.steps=3"]
    assert main([str(write_recipe("alone", LORA)), *rate]) == 0
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--main_process_port", str(20000 + os.getpid() % 20000), "-m", "finetune"]
    # Its own settings, if the user has some, are not for this.
    environment = os.environ | {"HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launcher, str(write_recipe("launched", LORA)), *rate], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "launched/lora/pytorch_lora_weights.safetensors")
    assert len(losses(tmp_path / "launched")) == 3  # one process wrote
    np.testing.assert_allclose(losses(tmp_path / "launched"), losses(tmp_path / "alone"), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler uses what torch deprecates
def test_a_step_is_traced_for_the_compiler_and_has_the_eager_loss(write_recipe, tmp_path, monkeypatch):
    """Up to where torch's own code generator, which takes minutes of a processor, would take over."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(OrbitUNet, "compile", partialmethod(nn.Module.compile, backend=backend))
    step = ["--set", "diffusion.loop.steps=1"]
    assert main([str(write_recipe("eager")), *step]) == 0
    assert not graphs
    assert main([str(write_recipe("compiled")), *step, "--set", "diffusion.loop.compile=true"]) == 0
    operations = [node for graph in graphs for node in graph.graph.nodes if node.op.startswith("call")]
    assert len(operations) > 100
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "eager"), rtol=1e-5)

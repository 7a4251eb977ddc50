"""Started by accelerate's launcher, and compiled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finetune.__main__ import main

LORA = "lora: {rank: 2, alpha: 2, targets: temporal_attention}\n"
COMPILER = os.environ.get("CXX", "g++")


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "adapt" / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_accelerates_launcher_starts_two_processes_that_train_as_one(write_recipe, tmp_path):
    rate = ["--set", "loop.learning_rate=2e-5", "--set", "loop.steps=3"]
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
@pytest.mark.skipif(
    shutil.which(COMPILER) is None, reason=f"torch.compile needs a C++ compiler, there is no {COMPILER}"
)
@pytest.mark.filterwarnings("ignore")  # torch's compiler uses what torch deprecates
def test_a_compiled_step_has_the_eager_loss(write_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")  # else it keeps a pool of processes
    steps = ["--set", "loop.steps=2", "--set", "loop.learning_rate=2e-5"]
    assert main([str(write_recipe("eager")), *steps]) == 0
    assert main([str(write_recipe("compiled")), *steps, "--set", "loop.compile=true"]) == 0
    assert list((tmp_path / "inductor").rglob("*.cpp"))  # it was compiled
    np.testing.assert_allclose(losses(tmp_path / "compiled"), losses(tmp_path / "eager"), rtol=1e-4)

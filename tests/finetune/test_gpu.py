"""Whole runs on a machine with a GPU: every network works there, and a seed means what it means on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eval.metrics.lpips import Lpips
from finetune.__main__ import main
from finetune.checkpoint import latest_checkpoint
from tests.fake_gpu import a_gpu

STAGES = ("autoencoder", "coarse", "diffusion")
OF_NETWORKS = {"convolution", "convolution_backward", "native_group_norm", "addmm", "_fused_adamw_", "_foreach_lerp_"}
LORA = "lora: {rank: 2, alpha: 2, targets: temporal_attention}\n"
DISTILLATION = "distillation: {num_steps: 2, teacher_steps: 4}\n"
EVERYTHING = [
    "diffusion.pixel_weight=1.0",
    "diffusion.discriminator_weight=0.1",
    "diffusion.train_decoder=true",
    "autoencoder.decoder_sees_views=true",
    *(f"{stage}.loop.{key}=1" for stage in STAGES[:2] for key in ("steps", "validate_every")),
    *(f"diffusion.loop.{key}=2" for key in ("steps", "validate_every")),
]


@pytest.fixture
def any_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS' network with weights that need not be fetched."""

    def load(net: str) -> Lpips:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return Lpips(net)

    for stage in ("autoencoder", "diffusion"):
        monkeypatch.setattr(f"finetune.stages.{stage}.load_lpips", load)


def checkpoints(run: Path, stages: tuple[str, ...]) -> dict[str, torch.Tensor]:
    found = {}
    for stage in stages:
        folder = latest_checkpoint(run / stage)
        assert folder is not None
        for name in ("network", "ema", "optimizer"):
            tensors = load_file(folder / f"{name}.safetensors")
            found |= {f"{stage}.{name}.{key}": value for key, value in tensors.items()}
    return found


def check_equal(run: Path, other: Path, stages: tuple[str, ...]) -> None:
    """As vectors: single weights whose gradient is rounding alone are moved by Adam as far as the others.

    Gradients behind the coarse stage may differ more: its surface is where a field passes zero, and the field of a
    network of one step is near zero everywhere, so that rounding adds and removes pixels of the drawn views.
    """
    ours, theirs = (checkpoints(place, stages) for place in (run, other))
    assert ours.keys() == theirs.keys()
    for stage in stages:
        for kind, end in (("network", ""), ("ema", ""), ("optimizer", ".exp_avg")):  # the last are gradients
            names = [key for key in ours if key.startswith(f"{stage}.{kind}.") and key.endswith(end)]
            a, b = (torch.cat([found[key].flatten().double() for key in names]) for found in (ours, theirs))
            allowed = 5e-2 if end and "coarse" in stages and stage == "diffusion" else 1e-2
            assert (a - b).norm() < allowed * b.norm(), f"{stage}, {kind}: {(a - b).norm() / b.norm()}"


@pytest.mark.usefixtures("any_lpips")
@pytest.mark.slow
def test_all_stages_of_the_mini_model_run_on_the_gpu_stopped_and_resumed(config_file, tmp_path, monkeypatch):
    def train(run: str, *more: str, stage: tuple[str, ...] = ()) -> None:
        settings = [f"run={tmp_path / run}", *EVERYTHING, *more]
        assert main([str(config_file), *stage, *(word for text in settings for word in ("--set", text))]) == 0

    train("cpu")
    with a_gpu(monkeypatch) as gpu:
        train("gpu", "diffusion.loop.steps=1")
        train("gpu", stage=("--stage", "diffusion"))
    assert not OF_NETWORKS & gpu.done["cpu"].keys()
    assert gpu.done["cuda"].keys() >= OF_NETWORKS
    check_equal(tmp_path / "gpu", tmp_path / "cpu", STAGES)
    assert (tmp_path / "gpu/diffusion/sheets/0000002.jpg").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", LORA, LORA + DISTILLATION], ids=["whole", "LoRA", "few steps"])
def test_adaptations_run_on_the_gpu(write_recipe, tmp_path, monkeypatch, more):
    def train(run: str) -> None:
        recipe = str(write_recipe(run, more, validation_objects=1))
        assert main([recipe, "--set", "diffusion.loop.steps=2", "--set", "diffusion.loop.validate_every=2"]) == 0

    train("cpu")
    with a_gpu(monkeypatch) as gpu:
        train("gpu")
    assert not OF_NETWORKS & gpu.done["cpu"].keys()
    assert gpu.done["cuda"].keys() >= OF_NETWORKS - {"convolution_backward"}  # a LoRA's are all products
    check_equal(tmp_path / "gpu", tmp_path / "cpu", ("diffusion",))
    assert (tmp_path / "gpu/diffusion/sheets/0000002.jpg").is_file()


def test_more_processes_than_gpus_are_one_line(config_file, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with a_gpu(monkeypatch):
        assert main([str(config_file)]) == 2
    assert "there is no GPU for process 2: start 1 on this machine" in capsys.readouterr().err

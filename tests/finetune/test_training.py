"""The trainer as a user runs it: whole runs at toy width, stopped, resumed, assembled, sampled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finetune.__main__ import main
from finetune.checkpoint import latest_checkpoint
from finetune.networks import make_coarse_net
from finetune.read_config import load_config
from mv3d.generate import GenerateSettings, generate_orbit
from mv3d.model.checkpoints import load_model


def _train(config: Path, run: Path, *arguments: str) -> int:
    return main([str(config), "--set", f"run={run}", *arguments])


def _weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    folder = latest_checkpoint(run / stage)
    return {
        f"{name}.{k}": v
        for name in ("network", "ema", "optimizer")
        for k, v in load_file(folder / f"{name}.safetensors").items()
    }


def test_two_steps_and_a_resume_to_four_equal_four_steps(config_file: Path, tmp_path: Path):
    assert _train(config_file, tmp_path / "once", "--stage", "coarse") == 0
    assert _train(config_file, tmp_path / "twice", "--stage", "coarse", "--set", "coarse.loop.steps=2") == 0
    assert latest_checkpoint(tmp_path / "twice" / "coarse").name == "step-0000002"
    assert _train(config_file, tmp_path / "twice", "--stage", "coarse") == 0
    once, twice = _weights(tmp_path / "once", "coarse"), _weights(tmp_path / "twice", "coarse")
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[key], twice[key]) for key in once)


def test_all_stages_become_a_model_that_makes_orbits(config_file: Path, tmp_path: Path, rendered: Path):
    run = tmp_path / "run"
    assert _train(config_file, run, "--set", "diffusion.loop.steps=2") == 0
    before = _weights(run, "diffusion")
    assert _train(config_file, run) == 0  # finds two stages done and continues the third
    after = _weights(run, "diffusion")
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before if key.startswith("network."))

    straight = tmp_path / "straight"
    assert _train(config_file, straight) == 0
    uninterrupted = _weights(straight, "diffusion")
    assert all(torch.equal(value, uninterrupted[key]) for key, value in after.items())

    lines = [json.loads(line) for line in (run / "diffusion" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert any("val_psnr" in line for line in lines)
    assert (run / "diffusion" / "sheets" / "0000004.jpg").is_file()

    model = load_model(run / "model")
    picture = np.zeros((32, 32, 4), dtype=np.float32)
    picture[8:24, 8:24] = (0.8, 0.2, 0.1, 1.0)
    steps = []
    orbit = generate_orbit(picture, model, GenerateSettings(num_views=4), on_step=lambda *step: steps.append(step))
    again = generate_orbit(picture, model, GenerateSettings(num_views=4))
    other = generate_orbit(picture, model, GenerateSettings(num_views=4, seed=1))
    assert steps == [("coarse", 0, 1), ("views", 0, 1), ("views", 1, 2), ("views", 2, 2)]
    assert np.array_equal(orbit.frames, again.frames)
    assert not np.array_equal(orbit.frames[1:], other.frames[1:])
    assert np.array_equal(orbit.frames[0], picture)
    preview = generate_orbit(picture, model, GenerateSettings(num_views=4, preview=True))
    assert preview.frames.shape == orbit.frames.shape

    heir = tmp_path / "heir"
    begin = ("--set", f"start_from={run / 'model'}", "--stage", "coarse", "--set", "coarse.loop.steps=0")
    assert _train(config_file, heir, *begin) == 0
    inherited, given = _weights(heir, "coarse"), load_file(run / "model" / "coarse" / "model.safetensors")
    frozen = {key for key in given if key.startswith("picture_net.backbone.")}  # in no checkpoint
    assert all(torch.equal(inherited[f"network.{key}"], given[key].float()) for key in given.keys() - frozen)
    network = make_coarse_net(load_config(config_file, ["seed=1", f"start_from={run / 'model'}"])).state_dict()
    assert all(torch.equal(network[key], given[key].float()) for key in frozen)


def test_a_stage_of_another_shape_is_refused_with_its_keys(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = tmp_path / "run"
    _train(config_file, run, "--stage", "coarse", "--set", "coarse.loop.steps=2")
    capsys.readouterr()
    code = _train(config_file, run, "--stage", "coarse", "--set", "coarse.network.grid_channels=[16, 16, 16, 16]")
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert "grid_net.stem.weight" in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("coarse.loop.stepz=3", "did you mean 'steps'"),
        ("coarse.loop.steps=three", "must be int"),
        ("dat=x", "did you mean 'data'"),
        ("coarse.loop.steps", "key=value"),
    ],
)
def test_bad_config_is_one_line_and_code_2(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture, override: str, expected: str
):
    assert _train(config_file, tmp_path / "run", "--set", override) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert expected in lines[0]
    assert not (tmp_path / "run").exists()

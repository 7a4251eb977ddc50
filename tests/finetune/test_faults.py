"""What goes wrong in long runs: killed at any moment, a full disk, a loss that is no number, a damaged shard."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.__main__ import main
from finetune.checkpoint import latest_checkpoint
from finetune.read_config import load_config

KILLS = 20
LORA = "lora: {rank: 2, alpha: 2, targets: temporal_attention}\n"


def weights(run: Path) -> dict[str, torch.Tensor]:
    folder = latest_checkpoint(run / "diffusion")
    files = {name: load_file(folder / f"{name}.safetensors") for name in ("network", "ema", "optimizer")}
    return {f"{name}.{key}": value for name, content in files.items() for key, value in content.items()}


def step_of(run: Path) -> int:
    folder = latest_checkpoint(run / "diffusion")
    return int(folder.name.removeprefix("step-")) if folder else 0


def wait_for_step(child: int, run: Path, step: int) -> bool:
    """Wait until the run has a checkpoint of at least ``step``; tells whether the child still runs."""
    while step_of(run) < step:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    return True


def test_an_interrupted_run_saves_its_step_and_fails(write_recipe, tmp_path, fork, capfd):
    recipe = str(write_recipe("run", LORA))
    child = fork(lambda: main([recipe, "--set", "diffusion.loop.steps=100000", "--set", "diffusion.loop.save_every=2"]))
    assert wait_for_step(child, tmp_path / "run", 2), "ended by itself"
    os.kill(child, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert message == "finetune: interrupted; the same command goes on from the last checkpoint"
    assert 2 <= step_of(tmp_path / "run") < 100000
    assert weights(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_killed_twenty_times_it_ends_bit_for_bit_as_if_it_had_not_been(write_recipe, tmp_path, fork):
    steps = ["--set", f"diffusion.loop.steps={5 * KILLS}", "--set", "diffusion.loop.save_every=1"]
    calm, killed = str(write_recipe("calm", LORA)), str(write_recipe("killed", LORA))
    assert main([calm, *steps]) == 0
    run, moments = tmp_path / "killed", random.Random(1)
    for k in range(KILLS):
        child = fork(lambda: main([killed, *steps]))
        # A random number of checkpoints further, then at a random moment of what a step and its checkpoint take.
        assert wait_for_step(child, run, step_of(run) + moments.randrange(2)), f"ended by itself before kill {k}"
        time.sleep(moments.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        folder = latest_checkpoint(run / "diffusion") if (run / "diffusion").is_dir() else None
        if folder is not None:  # whatever has the name is whole
            names = {path.name for path in folder.iterdir()}
            assert names == {"network.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"}
            assert weights(run)
    assert main([killed, *steps]) == 0
    ours, theirs = weights(run), weights(tmp_path / "calm")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    lora = "lora/pytorch_lora_weights.safetensors"
    ours, theirs = load_file(run / lora), load_file(tmp_path / "calm" / lora)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert not list((run / "diffusion").glob(".partial-*"))


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_last_checkpoint_stays(write_recipe, tmp_path, fork, capfd):
    recipe = str(write_recipe())
    assert main([recipe, "--set", "diffusion.loop.steps=2"]) == 0
    before = weights(tmp_path / "run")
    capfd.readouterr()

    def with_little_room() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing further than this then fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        return main([recipe])

    child = fork(with_little_room)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert "step-0000004 cannot be written" in message
    assert "MiB beside the older ones. Free space and run again: it goes on from step-0000002" in message
    after = weights(tmp_path / "run")
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert [path.name for path in (tmp_path / "run/diffusion").glob("*step-*")] == ["step-0000002"]
    assert main([recipe]) == 0
    assert step_of(tmp_path / "run") == 4


@pytest.mark.slow
def test_a_loss_that_is_no_number_names_the_objects_and_keeps_the_checkpoint(write_recipe, tmp_path, capsys):
    recipe = str(write_recipe())
    assert main([recipe, "--set", "diffusion.loop.steps=2"]) == 0
    before = weights(tmp_path / "run")
    assert main([recipe, "--set", "diffusion.loop.learning_rate=1e30"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is nan at step 3" in message or "is inf at step 3" in message
    assert "toy/ball-" in message
    assert "it goes on from step-0000002" in message
    assert all(torch.equal(value, before[key]) for key, value in weights(tmp_path / "run").items())


@pytest.mark.slow
def test_a_damaged_shard_stops_the_run_saved_and_is_made_again(write_recipe, tmp_path, capsys):
    calm, damaged = str(write_recipe("calm")), str(write_recipe("damaged"))
    steps = ["--set", "diffusion.loop.steps=9", "--set", "diffusion.loop.save_every=100"]
    assert main([calm, *steps]) == 0
    assert main([damaged, "--set", "diffusion.loop.steps=1"]) == 0
    (shards,) = (tmp_path / "damaged").glob("latents-*")
    for path in shards.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:3000])
    assert main([damaged, *steps]) == 2
    assert "delete it and run the same command again" in capsys.readouterr().err.strip().splitlines()[-1]
    for path in shards.glob("*.tar"):
        path.unlink()
    assert main([damaged, *steps]) == 0
    ours, theirs = weights(tmp_path / "damaged"), weights(tmp_path / "calm")
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_an_orbit_that_cannot_be_read_is_left_out_and_the_rest_is_trained_on(write_recipe, tmp_path, rendered):
    import shutil

    folder = tmp_path / "orbits"
    shutil.copytree(rendered, folder)
    (folder / "toy/ball-1/0/frames/002.png").write_bytes(b"nothing")
    recipe = str(write_recipe())
    assert main([recipe, "--set", f"data={folder}", "--set", "diffusion.loop.steps=1"]) == 0
    attribution = (tmp_path / "run/model/ATTRIBUTION.txt").read_text()
    assert len(attribution.splitlines()) == 2
    assert load_config(tmp_path / "run.yaml").diffusion.cache.variants == 3

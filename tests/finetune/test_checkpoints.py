"""What a run keeps of itself: the last two checkpoints, by strict names, and the one before where one is damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from finetune.checkpoint import (
    TrainingState,
    checkpoint_folder,
    latest_checkpoint,
    load_checkpoint,
    load_ema,
    save_checkpoint,
)
from finetune.ema import Ema
from finetune.muon import Muon
from mv3d.errors import Mv3dError

FILES = ("network.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")


@dataclass
class Run:
    """A network of one layer that is trained in a folder."""

    folder: Path

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(3, 2)
        self.ema = Ema(self.network)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1, fused=True)

    def train(self, *steps: int) -> dict[int, torch.Tensor]:
        """Save at every step; returns the weights of each."""
        weights = {}
        for step in steps:
            self.network(torch.ones(3)).sum().backward()
            self.optimizer.step()
            self.ema.update(0.5)
            save_checkpoint(self.folder, self.network, self.ema, self.optimizer, TrainingState(step))
            weights[step] = self.network.weight.detach().clone()
        return weights

    def load(self) -> TrainingState | None:
        return load_checkpoint(self.folder, self.network, self.ema, self.optimizer)


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x40  # the last number of the last tensor, or the last brace
    path.write_bytes(data)


def swap_for_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_the_last_two_are_kept_and_what_is_called_alike_is_never_taken_or_deleted(tmp_path):
    (tmp_path / "step-notes.txt").write_text("mine")
    (tmp_path / "step-0000009").write_text("a file")
    for name in ("step-0000004-backup", "step-77", "step-", "step-00000008"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    before = steps_in(tmp_path)
    assert latest_checkpoint(tmp_path) is None
    run = Run(tmp_path)
    assert run.load() is None
    weights = run.train(1, 2, 3)
    assert steps_in(tmp_path) == sorted([*before, "step-0000002", "step-0000003"])
    other = Run(tmp_path)
    state = other.load()
    assert state is not None
    assert state.step == 3
    assert torch.equal(other.network.weight, weights[3])
    assert latest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 3)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink, swap_for_folder])
def test_the_one_before_a_damaged_one_is_taken_with_a_line(tmp_path, capsys, name, damage):
    weights = Run(tmp_path).train(4, 6)
    damage(tmp_path / "step-0000006" / name)
    run = Run(tmp_path)
    state = run.load()
    assert state is not None
    assert state.step == 4
    assert torch.equal(run.network.weight, weights[4])
    assert all(entry["step"] == 1 for entry in run.optimizer.state.values())
    (line,) = capsys.readouterr().err.splitlines()
    assert "step-0000006 is damaged" in line
    assert name in line
    run.train(5)  # the damaged one is of no use any more, and this one is the newest
    assert steps_in(tmp_path) == ["step-0000004", "step-0000005"]


def test_the_averages_are_those_of_the_one_before_too(tmp_path, capsys):
    Run(tmp_path).train(4, 6)
    truncate(tmp_path / "step-0000006" / "ema.safetensors")
    network = load_ema(tmp_path, nn.Linear(3, 2))
    assert torch.equal(network.weight, load_file(tmp_path / "step-0000004" / "ema.safetensors")["weight"])
    assert "step-0000006 is damaged" in capsys.readouterr().err


def test_where_all_are_damaged_nothing_begins_anew_by_itself(tmp_path):
    Run(tmp_path).train(4, 6)
    for folder in tmp_path.iterdir():
        truncate(folder / "ema.safetensors")
    for load in (Run(tmp_path).load, lambda: load_ema(tmp_path, nn.Linear(3, 2))):
        with pytest.raises(Mv3dError, match="no checkpoint can be read .*delete"):
            load()
    assert steps_in(tmp_path) == ["step-0000004", "step-0000006"]


def test_checkpoints_from_before_there_were_checksums_are_read(tmp_path):
    weights = Run(tmp_path).train(4)
    (tmp_path / "step-0000004" / "state.json").write_text(json.dumps({"step": 4, "seconds": 1.5}))
    run = Run(tmp_path)
    assert run.load() == TrainingState(4, 1.5)
    assert torch.equal(run.network.weight, weights[4])


@pytest.mark.parametrize(
    "state", ["[]", '{"step": 5, "seconds": 0}', '{"step": 4, "seconds": NaN}', "[" * 100_000, "4"]
)
def test_a_state_that_says_something_else_is_damage(tmp_path, state):
    Run(tmp_path).train(3, 4)
    (tmp_path / "step-0000004" / "state.json").write_text(state)
    found = Run(tmp_path).load()
    assert found is not None
    assert found.step == 3


def test_another_optimizer_or_moments_of_another_shape_are_one_line(tmp_path):
    Run(tmp_path).train(4)
    run = Run(tmp_path)
    run.optimizer = Muon(run.network.parameters(), 0.1, (0.9, 0.99), 0.0)
    with pytest.raises(Mv3dError, match=r"is AdamW's, and the config's optimizer is Muon; keep"):
        run.load()
    path = tmp_path / "step-0000004" / "optimizer.safetensors"
    moments = load_file(path)
    save_file({key: value[..., :1].clone() if value.ndim else value for key, value in moments.items()}, path)
    (path.parent / "state.json").write_text('{"step": 4}')
    with pytest.raises(Mv3dError, match="does not fit the network: parameter 0"):
        Run(tmp_path).load()


def test_a_checkpoint_is_written_again_over_a_copy_that_was_put_back(tmp_path):
    run = Run(tmp_path)
    run.train(2, 4)
    shutil.copytree(tmp_path / "step-0000004", tmp_path / "step-0000008")  # says 4: not what it is called
    assert run.load() is not None
    run.train(6)
    assert steps_in(tmp_path) == ["step-0000004", "step-0000006"]

"""Which checkpoint stays, and beginning with another run's: on a network of one layer, and as commands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from finetune.__main__ import main
from finetune.checkpoint import BEST, find_checkpoint, latest_checkpoint
from finetune.log import TrainingLog
from finetune.loop import train
from finetune.loop_config import LoopConfig
from finetune.processes import WHOLE, MicroBatch
from finetune.read_config import load_config
from finetune.stages.diffusion import DiffusionTraining
from mv3d.errors import Mv3dError

LOOP = LoopConfig(steps=8, batch_size=1, learning_rate=0.1, save_every=2, validate_every=2, log_every=8)
LORA = "lora: {rank: 2, alpha: 2, targets: temporal_attention}\n"


@dataclass
class Line:
    """A stage that fits a line, whose held-out losses are given."""

    losses: dict[int, float] = field(default_factory=dict)
    divisible = True
    images_per_sample = 1

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(3, 2)

    def loss(self, step: int, generator: torch.Generator, part: MicroBatch = WHOLE):
        return self.network(torch.randn(4, 3, generator=generator)).square().mean(), {}

    def object_ids(self, step: int) -> list[str]:
        return []

    def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
        return {"loss": self.losses[int(sheet.stem)]} if self.losses else {}


def fit(stage: Line, run: Path, steps: int = 8, **more) -> None:
    train(stage, replace(LOOP, steps=steps), run, TrainingLog(run), seed=0, **more)


def kept(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir() if path.is_dir())


def step_of(checkpoint: Path) -> int:
    return json.loads((checkpoint / "state.json").read_text())["step"]


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    names = ("network", "ema", "optimizer")
    return {f"{n}.{key}": value for n in names for key, value in load_file(checkpoint / f"{n}.safetensors").items()}


def check_equal(one: Path, other: Path) -> None:
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(value, b[key]) for key, value in a.items())


def test_the_best_checkpoint_stays_until_a_better_one_comes(tmp_path):
    fit(Line(), tmp_path / "two", steps=2)
    run = tmp_path / "run"
    losses = {0: 5.0, 2: 3.0, 4: 4.0, 6: float("nan"), 8: 3.5, 10: 3.2, 12: 2.0}
    fit(Line(losses), run, score_first=True)
    assert kept(run) == [BEST, "step-0000006", "step-0000008"]
    check_equal(run / BEST, tmp_path / "two/step-0000002")
    fit(Line(losses), run, steps=10)  # knows what was best before it was stopped
    assert step_of(run / BEST) == 2
    fit(Line(losses), run, steps=12)
    assert step_of(run / BEST) == 12


def test_what_is_no_better_than_before_the_first_step_is_not_kept(tmp_path):
    fit(Line({0: 1.0, 2: 3.0, 4: 2.0}), tmp_path, steps=4, score_first=True)
    assert kept(tmp_path) == ["step-0000002", "step-0000004"]


def test_a_run_begins_with_another_ones_weights_moments_and_step(tmp_path):
    fit(Line(), tmp_path / "whole")
    fit(Line(), tmp_path / "half", steps=4)
    begin = find_checkpoint(tmp_path / "half", "diffusion")
    fit(Line(), tmp_path / "rest", begin=begin)
    check_equal(tmp_path / "rest/step-0000008", tmp_path / "whole/step-0000008")
    fit(Line(), tmp_path / "rest", steps=10, begin=begin)  # has its own by now
    assert kept(tmp_path / "rest") == ["step-0000008", "step-0000010"]


def test_what_another_run_scored_best_does_not_count(tmp_path):
    fit(Line({2: 1.0, 4: 2.0}), tmp_path / "first", steps=4)
    fit(Line({4: 6.0, 6: 5.0}), tmp_path / "second", steps=6, begin=tmp_path / "first" / BEST)
    assert step_of(tmp_path / "second" / BEST) == 6


def test_a_damaged_beginning_is_one_line(tmp_path):
    fit(Line({2: 1.0}), tmp_path / "first", steps=2)
    (tmp_path / "first" / BEST / "ema.safetensors").write_bytes(b"")
    with pytest.raises(Mv3dError, match=r"best is damaged \(.*ema.safetensors.*name another checkpoint"):
        fit(Line(), tmp_path / "second", begin=tmp_path / "first" / BEST)


@pytest.mark.slow
def test_a_base_is_scored_before_the_first_step_and_at_the_same_noise_each_time(write_recipe, tmp_path, monkeypatch):
    sheets: list[str] = []
    monkeypatch.setattr(  # that samples are made is tested with whole runs
        "finetune.stages.diffusion.score_sampled", lambda *given: sheets.append(given[3].name) or {"psnr": 20.0}
    )
    recipe = write_recipe(more=LORA, validation_objects=1)
    stage = DiffusionTraining(load_config(recipe))
    one, two = (stage.validate(stage.network, tmp_path / "sheet.jpg") for _ in range(2))
    assert one == two
    levels = [f"loss_{level}" for level in ("0.41", "2", "10")]  # ln sigma of .7, and one spread below and above
    assert one["loss"] == pytest.approx(sum(one[level] for level in levels) / 3)
    stage.close()

    assert main([str(recipe), "--set", "diffusion.loop.steps=2", "--set", "diffusion.loop.validate_every=2"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/diffusion/log.jsonl").read_text().splitlines()]
    scored = [line for line in lines if "val_psnr" in line]
    assert [line["step"] for line in scored] == [0, 2]
    assert scored[0]["val_loss"] == one["loss"]  # the base's own: adapters begin at nothing
    assert sheets == ["sheet.jpg", "sheet.jpg", "0000000.jpg", "0000002.jpg"]
    assert "| psnr | " in (tmp_path / "run/lora/README.md").read_text()


@pytest.mark.slow
def test_resume_from_as_a_command(write_recipe, tmp_path, capsys):
    first, second = (str(write_recipe(name, LORA)) for name in ("first", "second"))
    two = ["--set", "diffusion.loop.steps=2"]
    assert main([first, *two]) == 0
    assert main([second, "--resume-from", str(tmp_path / "first")]) == 0
    assert "begins with" in capsys.readouterr().err
    assert main([first]) == 0
    ours, theirs = (latest_checkpoint(tmp_path / name / "diffusion") for name in ("second", "first"))
    assert ours is not None
    assert theirs is not None
    assert ours.name == "step-0000004"
    check_equal(ours, theirs)

    other = str(write_recipe("other", LORA.replace("rank: 2", "rank: 4")))
    for given, expected in (
        (tmp_path / "nowhere", "nowhere holds no checkpoint of the stage diffusion; name a run's folder"),
        (tmp_path / "first", "do not fit the network"),
    ):
        capsys.readouterr()
        assert main([other, "--resume-from", str(given)]) == 2
        assert expected in capsys.readouterr().err.splitlines()[-1]
        assert latest_checkpoint(tmp_path / "other/diffusion") is None


def test_a_sheet_is_shown_where_nothing_is_scored(tmp_path, monkeypatch):
    class Drawing(Line):
        def validate(self, network: nn.Module, sheet: Path) -> dict[str, float]:
            if sheet.stem != "0000004":
                sheet.parent.mkdir(parents=True, exist_ok=True)
                sheet.write_bytes(b"a picture")
            return {}

    shown = []
    monkeypatch.setattr(TrainingLog, "show", lambda log, *, step, sheet: shown.append((step, sheet.name)))
    fit(Drawing(), tmp_path, steps=6)
    assert shown == [(2, "0000002.jpg"), (6, "0000006.jpg")]

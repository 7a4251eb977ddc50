"""A run's folder: one process at a time, and nothing in it of what killed processes were writing."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from finetune.__main__ import main
from finetune.folder import held_folder
from mv3d.errors import Mv3dError


def test_two_processes_do_not_train_in_one_folder(config_file: Path, tmp_path: Path, capsys):
    run = tmp_path / "run"
    with held_folder(run):
        pass  # ended: no obstacle
    with (run / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as another process would, which holds it as long as it lives
        assert main([str(config_file)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{run} is another process's" in line
        assert sorted(path.name for path in run.iterdir()) == [".lock"]
    with held_folder(run), pytest.raises(Mv3dError, match="another process's"), held_folder(run):
        pass
    with held_folder(run):
        pass


def test_what_killed_legs_left_is_deleted_and_what_stood_aside_comes_back(tmp_path: Path):
    run = tmp_path / "run"
    for name in (
        ".partial-12-pack-32",
        ".partial-12-0123abcd-model",
        "coarse/.partial-3-step-0000004",
        "coarse/sheets",
        "latents-abc",
        ".replaced-9-model",
        "lora",
        ".replaced-9-0123abcd-lora",
    ):
        (run / name).mkdir(parents=True)
        (run / name / "file").write_text(name)
    for name in (".partial-7-config.json", "latents-abc/.partial-7-000001.tar", "coarse/sheets/.partial-1-a.jpg"):
        (run / name).write_text("half")
    with held_folder(run):
        found = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    assert found == [".lock", "coarse/sheets/file", "latents-abc/file", "lora/file", "model/file"]
    assert (run / "model/file").read_text() == ".replaced-9-model"
    assert (run / "lora/file").read_text() == "lora"  # the new one was there already


def test_a_file_or_a_place_that_is_no_folder_is_one_line(config_file: Path, tmp_path: Path, capsys):
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/run"):
        assert main([str(config_file), "--set", f"run={tmp_path / place}"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    (tmp_path / "odd" / ".lock").mkdir(parents=True)
    assert main([str(config_file), "--set", f"run={tmp_path / 'odd'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written to" in line
    assert (tmp_path / "file").read_text() == "mine"

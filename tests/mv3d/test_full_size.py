"""The files of benchmarks/full_size.py at a thousandth of the size: loaded, and worked with piece by piece."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.full_size import make_commands, measure, work_piece
from benchmarks.random_weights import SV3D, SVD, write_models
from benchmarks.usage import watch
from finetune.read_config import load_config
from mv3d.errors import Mv3dError


@pytest.mark.parametrize("name", [SVD, SV3D])
@pytest.mark.parametrize("piece", ["load", "pass", "decode"])
def test_a_narrow_model_is_read_and_its_clips_are_finite(tmp_path, name, piece):
    write_models(tmp_path, [name], narrow=True)
    assert (tmp_path / SVD).exists() == (name == SVD)
    work_piece(piece, tmp_path / name, views=3, size_px=64)


def test_a_part_is_measured_once(tmp_path, monkeypatch, capsys):
    asked = []

    def found(command: list[str], log: object, folder: object) -> dict[str, float]:
        asked.append(command)
        return {"exit": int(len(asked) == 1), "peak_gib": 1.0}

    monkeypatch.setattr("benchmarks.full_size.watch", found)
    sizes = {"views": 2, "size_px": 32, "steps": 1}
    for _ in range(3):  # the first fails, and is measured again
        measure(tmp_path, tmp_path / "found.jsonl", **sizes, parts=["load-svd"])
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [(line["part"], line["exit"]) for line in lines] == [("load-svd", 1), ("load-svd", 0)]
    assert lines[0]["command"] == "benchmarks/full_size.py load svd-xt"  # nothing of this machine's folders
    with pytest.raises(Mv3dError, match="there is no part fly; there are load-svd, "):
        measure(tmp_path, tmp_path / "found.jsonl", **sizes, parts=["fly"])


def test_the_lora_that_is_measured_is_one_that_the_trainer_takes(tmp_path):
    module, program, recipe, *sets = make_commands(tmp_path, tmp_path / "orbits", views=3, size_px=128, steps=1)["lora"]
    assert (module, program, sets[::2]) == ("-m", "finetune", ["--set"] * (len(sets) // 2))
    config = load_config(Path(recipe), [str(word) for word in sets[1::2]])
    assert config.base == str(tmp_path / SVD)
    assert (config.num_views, config.resolution_px, config.diffusion.loop.steps) == (3, 128, 1)
    assert config.diffusion.lora is not None
    assert config.diffusion.lora.base_storage == "float32"  # all others multiply in bfloat16
    assert not config.diffusion.loop.bfloat16


def test_the_peak_is_that_of_the_command_and_not_of_who_starts_it(tmp_path):
    held = b"1" * (3 * 2**29)
    small = watch([sys.executable, "-c", "print(1)"], tmp_path / "log", tmp_path)
    assert (small["exit"], small["peak_gib"] < 0.2) == (0, True), small
    assert (tmp_path / "log").read_text() == "1\n"
    large = watch([sys.executable, "-c", "x = b'1' * 2**30; raise SystemExit(3)"], tmp_path / "log", tmp_path)
    assert (large["exit"], 1 < large["peak_gib"] < 1.2) == (3, True), large
    del held  # until here

"""What wandb is sent, offline: metrics, sheets and videos of a run that was resumed."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from finetune.__main__ import main
from mv3d.orbit import load_orbit
from mv3d.pixels import composite

wandb = pytest.importorskip("wandb", reason="no wandb: pip install -e '.[train]'")

BLOCK = 32768


def records(path: Path) -> Iterator:
    """The records of a .wandb file: protobuf messages in LevelDB's log format behind seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, message = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # no room for a header
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        message += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(message)
            message = b""


def history(path: Path) -> list[dict]:
    found = [record.history for record in records(path) if record.WhichOneof("record_type") == "history"]
    return [{".".join(item.nested_key) or item.key: item.value_json for item in h.item} for h in found]


class SquaredError(torch.nn.Module):
    """In place of LPIPS, whose weights not every machine has."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).square().mean(dim=(1, 2, 3))


def decoded(video: Path, width: int, height: int) -> np.ndarray:
    """The frames (N, height, width, 3) in [0, 1]; imageio_ffmpeg's own reader leaves its pipes open."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3) / 255


@pytest.mark.slow
def test_a_resumed_run_is_one_run_with_metrics_and_videos_beside_truth(write_recipe, tmp_path, monkeypatch, rendered):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr("finetune.stages.diffusion.load_lpips", lambda _: SquaredError())
    recipe = str(write_recipe(top="wandb_project: toy\n", validation_objects=1))
    try:
        for steps in (2, 4):
            settings = ["--set", f"diffusion.loop.steps={steps}", "--set", "diffusion.loop.validate_every=2"]
            assert main([recipe, *settings]) == 0
    finally:
        wandb.teardown()
    run = tmp_path / "run/diffusion"
    first, second = sorted(run.glob("wandb/offline-run-*"))
    identity = (run / "wandb_id.txt").read_text()
    sent = []
    for folder in (first, second):
        path = folder / f"run-{identity}.wandb"
        by_kind = {record.WhichOneof("record_type"): record for record in records(path)}
        assert (by_kind["run"].run.run_id, by_kind["run"].run.project) == (identity, "toy")
        config = {item.key: json.loads(item.value_json) for item in by_kind["config"].config.update}
        assert config["diffusion"]["loop"]["learning_rate"] == 1e-3
        sent += history(path)

    # The metrics are those of the JSON lines, by the same steps.
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    metrics = [{k: json.loads(v) for k, v in line.items() if not k.startswith("_")} for line in sent]
    logged = [line for line in metrics if "orbits.path" not in line]
    assert logged == [{k: v for k, v in line.items() if k != "time"} for line in lines]
    assert [line["step"] for line in logged if "loss" in line] == [1, 2, 3, 4]
    shown = [line for line in metrics if "orbits.path" in line]
    assert [line["step"] for line in shown] == [0, 2, 4]

    # The video has the truth at the left of the model's views.
    truth = composite(load_orbit(rendered / "toy/ball-3/0").frames)
    for line, folder in zip(shown, (first, first, second), strict=True):
        assert (folder / "files" / line["sheet.path"]).is_file()
        frames = decoded(folder / "files" / line["orbits.path"], width=64, height=32)
        assert frames.shape[0] == len(truth)
        left, right = frames[:, :, :32], frames[:, :, 32:]
        assert np.square(left - truth).mean() < 0.01
        assert np.square(right - truth).mean() > 0.01  # random weights

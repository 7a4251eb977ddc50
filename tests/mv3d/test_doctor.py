"""What ``mv3d doctor`` says of a machine: what is there, and the next step for what is not."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest
import torch

from mv3d.cli import main
from mv3d.doctor import ORBIT_GIB, Finding, examine, fitting_options


def found(name: str) -> Finding:
    return next(finding for finding in examine() if finding.name == name)


def make_cache(folder: Path, repository: str, files: dict[str, str]) -> None:
    """As the hub's client lays it out: snapshots of links to blobs."""
    home = folder / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / ("0" * 40)
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text("0" * 40)
    (home / "blobs").mkdir()
    for name, text in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "blobs" / name.replace("/", "-")).write_text(text)
        (snapshot / name).symlink_to(home / "blobs" / name.replace("/", "-"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def test_it_says_line_by_line_what_is_here_and_what_to_do(no_blender, cache, monkeypatch, capsys):
    monkeypatch.setattr("mv3d.doctor.find_spec", lambda name: None if name == "gradio" else object())
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = {line[:26].strip(): line[26:].strip() for line in lines if line[0] != " "}
    assert torch.__version__ in told["torch"]
    assert "GFLOP/s " in told["products"]
    assert " GiB, " in told["memory"]
    assert told["torch.compile"] == "no compiler"
    assert told["mv3d web"] == "gradio missing"
    assert told["python -m finetune"] == "ready"
    assert told["weights"].startswith("mini; the hub's cache is ")
    advice = [line.strip() for line in lines if line[0] == " "]
    for part in ("python -m mv3d.blender install", '".[app]"', "g++", "stabilityai/sv3d"):
        assert any(line.startswith("-> ") and part in line for line in advice)


def test_weights_in_the_hubs_cache_are_named_as_model_takes_them(cache):
    make_cache(cache, "stabilityai/sv3d", {"sv3d_p.safetensors": "1" * 2_000_000, "README.md": "x"})
    make_cache(cache, "some/svd", {"model_index.json": '{"_class_name": "StableVideoDiffusionPipeline"}'})
    make_cache(cache, "some/sdxl", {"model_index.json": '{"_class_name": "StableDiffusionXLPipeline"}'})
    make_cache(cache, "some/broken", {"model_index.json": "{"})
    line = found("weights")
    assert line.text.startswith("mini, some/svd (0.0 GB), stabilityai/sv3d/sv3d_p.safetensors (0.0 GB); ")
    assert line.advice is None


def test_a_card_and_a_torch_that_does_not_see_it(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "install PyTorch for CUDA" in str(found("torch").advice)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "too old for CUDA 12.8" in str(found("torch").advice)


def test_a_card_is_told_what_fits_it(monkeypatch):
    properties = {"get_device_name": "A card", "mem_get_info": (7 * 2**30, 8 * 2**30), "device_count": 1}
    for name, value in properties.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    line = next(finding for finding in examine() if finding.name == "cuda:0")
    assert line.text == f"A card, 8 GiB, 7.0 free; SVD's size: {fitting_options(7)}"


def test_less_memory_asks_for_slower_options():
    needs = [gib for _, gib in ORBIT_GIB]
    assert needs == sorted(needs, reverse=True)
    for options, gib in ORBIT_GIB:
        assert fitting_options(1.1 * gib + 1.01) == options
    assert "ask for fewer views" in fitting_options(needs[-1])
    assert fitting_options(141) == "as it is"


@pytest.mark.slow
def test_what_is_said_to_fit_is_what_is_worked_out():
    from benchmarks.sampling_memory import GIB, work_out

    found = {
        "--decode-chunk 4": work_out("svd", decode_chunk=4).total("none"),
        "--offload model --decode-chunk 4": work_out("svd", apart=True, decode_chunk=4).total("model"),
    }
    assert {options: pytest.approx(size / GIB, abs=0.05) for options, size in found.items()} == {
        options: gib for options, gib in ORBIT_GIB if options in found
    }


def test_slow_16_bits_are_said(monkeypatch):
    rates = {torch.float32: 60.0, torch.float16: 1.0, torch.bfloat16: 8.0}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr("mv3d.doctor._rate", lambda _, __, dtype: rates[dtype])
    line = found("products")
    assert line.text == "float32 60, float16 1, bfloat16 8 GFLOP/s a core"
    assert "multiplies in float32" in str(line.advice)
    rates[torch.bfloat16] = 90.0
    assert found("products").advice is None


Memory = namedtuple("Memory", "total available")
Disk = namedtuple("Disk", "total used free")


def test_memory_is_in_gib(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory(16 * 2**30, 2**32))
    monkeypatch.setattr("shutil.disk_usage", lambda _: Disk(0, 0, 50 * 2**30))
    assert found("memory").text == "16.0 GiB, 4.0 free; disk 50 GiB free"

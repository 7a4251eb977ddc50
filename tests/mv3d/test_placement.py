"""Weights of 16 bits, networks that are only partly there, halves apart, and a want of memory in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import nn

import mv3d.model.weights
from mv3d.cli import main
from mv3d.errors import Mv3dError
from mv3d.generate import GenerateSettings, generate_clip
from mv3d.model.checkpoints import OrbitModel, load_model
from mv3d.model.loading import load_ready_model, place_model
from mv3d.model.placement import Placement, explained_memory, weights_dtype
from mv3d.model.weights import TensorReader
from mv3d.model_options import ModelOptions
from tests.fake_gpu import GPU, a_gpu

CPU = torch.device("cpu")
PICTURE = np.random.default_rng(0).random((64, 64, 4), dtype=np.float32)


def frames(model: OrbitModel, **settings: int) -> np.ndarray:
    small = replace(model, facts=replace(model.facts, resolution_px=64))
    return generate_clip(PICTURE, small, GenerateSettings(4, 20.0, steps=1, **settings)).frames


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_weights_of_16_bits_give_the_frames_that_they_would_give_in_32(svd_folder, dtype):
    kept = load_ready_model(str(svd_folder), "cpu", ModelOptions(dtype))
    stored = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    wide = load_model(svd_folder, dtype=stored)
    for network in (wide.unet, wide.vae, wide.image_encoder):
        nn.Module.to(network, torch.float32)
    expected = frames(wide)
    np.testing.assert_array_equal(frames(kept), expected)
    np.testing.assert_allclose(frames(kept, decode_chunk=2), expected, atol=1e-5)  # layer by layer
    for network in (kept.unet, kept.vae):
        numbers = sum(p.numel() for p in network.parameters())
        size = sum(p.numel() * p.element_size() for p in network.parameters())
        assert size < 2.4 * numbers  # norms stay in 32


def test_a_network_whose_layers_come_one_by_one_gives_the_same(svd_folder):
    layers = place_model(load_model(svd_folder), Placement(CPU, "sequential"))
    assert all(parameter.is_meta for parameter in layers.unet.parameters())
    whole = load_model(svd_folder)
    np.testing.assert_allclose(frames(layers), frames(whole), atol=1e-4)
    assert all(parameter.is_meta for parameter in layers.unet.parameters())


@pytest.mark.slow
def test_offloaded_networks_are_on_the_gpu_one_at_a_time(svd_folder, monkeypatch):
    expected = frames(load_model(svd_folder))
    with a_gpu(monkeypatch) as gpu:
        model = place_model(load_model(svd_folder), Placement(GPU, "model"))
        networks = {name: getattr(model, name) for name in ("unet", "vae", "image_encoder")}

        def there() -> list[str]:
            return [name for name, network in networks.items() if next(network.parameters()).device.type == "cuda"]

        seen = []
        for network in (model.unet, model.vae.encoder, model.vae.decoder.conv_in, model.image_encoder):
            network.register_forward_pre_hook(lambda *_: seen.append(there()))
        made = frames(model)
        assert there() == []
    assert seen == [["vae"], ["image_encoder"], ["unet"], ["unet"], ["vae"]]
    assert not {"convolution", "addmm", "native_group_norm"} & gpu.done["cpu"].keys()
    np.testing.assert_allclose(made, expected, atol=1e-4)


def test_auto_keeps_large_models_as_they_are_published():
    assert weights_dtype("auto", 1_524_000_000) == torch.float16
    assert weights_dtype("auto", 20_000_000) == torch.float32
    assert weights_dtype("bf16", 1) == torch.bfloat16


def test_little_of_a_file_is_mapped_at_a_time(tmp_path, monkeypatch):
    save_file(
        {name: torch.full((100,), k, dtype=torch.float16) for k, name in enumerate("abcdef")},
        tmp_path / "x.safetensors",
    )
    opened, open_file = [], mv3d.model.weights.safe_open
    monkeypatch.setattr(mv3d.model.weights, "_MAPPED_NUMBERS", 150)
    monkeypatch.setattr(
        mv3d.model.weights, "safe_open", lambda *given, **more: opened.append(1) or open_file(*given, **more)
    )
    reader = TensorReader(tmp_path / "x.safetensors", torch.float32)
    assert [float(reader.read(name)[0]) for name in "abcdef"] == [0, 1, 2, 3, 4, 5]
    assert len(opened) == 3


@pytest.mark.parametrize(
    ("placement", "argument", "message", "helps"),
    [
        (Placement(torch.device("cuda")), None, "on cuda to sample 21 views: offload model keeps less", "offload"),
        (Placement(torch.device("cuda"), "model"), None, "offload sequential keeps less", "offload"),
        (Placement(torch.device("cuda"), "sequential"), None, "ask for fewer views", "num_views"),
        (Placement(CPU), None, "ask for fewer views, and for weights of 16 bits", "num_views"),
        (Placement(CPU), "decode_chunk", "take less of it at a time", "decode_chunk"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_a_want_of_memory_names_what_helps(placement, argument, message, helps, error):
    with pytest.raises(Mv3dError, match=message) as caught, explained_memory(placement, "sample 21 views", argument):
        raise error
    assert caught.value.argument == helps


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes differ"), explained_memory(Placement(CPU), "sample"):
        raise RuntimeError("shapes differ")


def test_sampling_without_memory_is_one_line_with_the_option(svd_folder, tmp_path, monkeypatch, capsys):
    picture = Image.new("RGB", (64, 64), (255, 255, 255))
    ImageDraw.Draw(picture).rectangle((20, 10, 44, 54), fill=(150, 80, 20))
    picture.save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mv3d.model.pipeline.sample_euler", fail)
    words = ["orbit", "a.png", "--model", str(svd_folder), "--keep-framing", "--num-views", "3"]
    monkeypatch.setattr("mv3d.model.checkpoints.load_model", lambda *given: _small(load_model(*given)))
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("mv3d: there is not enough memory on cpu to sample 3 views: ask for fewer views")
    assert said.endswith("(--num-views)")
    assert not Path("a_orbit").exists()
    assert main([*words, "--offload", "model", "--device", "cpu"]) == 2
    assert "offload model brings a model to a GPU part by part" in capsys.readouterr().err


def _small(model: OrbitModel) -> OrbitModel:
    return replace(model, facts=replace(model.facts, resolution_px=64))

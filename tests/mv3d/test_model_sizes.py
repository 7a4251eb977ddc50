"""Model folders that ask for the impossible: one line, before anything is made of it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mv3d.errors import Mv3dError
from mv3d.model.checkpoints import load_model
from mv3d.model.weights import TensorReader, load_module, load_weights
from tests.mv3d.test_stability import make_state


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "model")


UNET, VAE, ENCODER, COARSE = (f"{part}/config.json" for part in ("unet", "vae", "image_encoder", "coarse"))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (UNET, {"block_out_channels": [10**9, 10**9]}, "block_out_channels 1e[+]09 is too much; the widest of"),
        (UNET, {"block_out_channels": [32] * 10**6}, "block_out_channels is a list of 1000000"),
        (UNET, {"layers_per_block": 10**6}, "layers_per_block 1e[+]06 is too much"),
        (UNET, {"transformer_layers_per_block": 40}, "asks for layers of 640 tensors at least"),
        (UNET, {"num_attention_heads": 0}, "num_attention_heads 0 is too little; 1 is the least"),
        (UNET, {"num_attention_heads": [1, -1]}, "num_attention_heads -1 is too little"),
        (UNET, {"cross_attention_dim": float("nan")}, "cross_attention_dim nan is no finite number"),
        (UNET, {"cross_attention_dim": 10**400}, "cross_attention_dim 1e[+]15 is too much"),
        (UNET, {"pose_embed_dim": 10**9}, "pose_embed_dim 1e[+]09 is too much"),
        (UNET, {"down_block_types": ["Nothing"] * 2}, "does not describe this kind of network: .*Nothing"),
        (VAE, {"latent_channels": 10**9}, "latent_channels 1e[+]09 is too much"),
        (VAE, {"norm_num_groups": 0}, "norm_num_groups 0 is too little"),
        (VAE, {"layers_per_block": 10**6}, "layers_per_block 1e[+]06 is too much"),
        (VAE, {"scaling_factor": float("inf")}, "scaling_factor inf is no finite number"),
        (ENCODER, {"num_hidden_layers": 10**6}, "num_hidden_layers 1e[+]06 is too much"),
        (ENCODER, {"hidden_size": 10**9}, "hidden_size 1e[+]09 is too much"),
        (ENCODER, {"num_attention_heads": 0}, "num_attention_heads 0 is too little"),
        (ENCODER, {"image_size": 10**9}, "image_size 1e[+]09 is too much; the limit is 8192"),
        (COARSE, {"grid_size": 10**9}, "grid_size 1e[+]09 is too much; the limit is 512"),
        (COARSE, {"rays_px": 10**9}, "rays_px 1e[+]09 is too much; the limit is 8192"),
        (COARSE, {"grid_channels": [10**9]}, "grid_channels 1e[+]09 is too much"),
        (COARSE, {"rays_px": 8}, "rays_px of a coarse network is 8; give half of picture_px, 32"),
        (COARSE, {"num_bins": 10**9}, "num_bins of a coarse network is 1e[+]09; give a multiple of 2 from 2 to 1024"),
        (COARSE, {"fov_deg": "wide"}, "coarse/config.json does not describe this kind of network"),
    ],
)
def test_a_config_beyond_its_weights_is_one_line_at_once(folder, file, changes, message, monkeypatch):
    read, allocated = TensorReader.read, []
    monkeypatch.setattr(TensorReader, "read", lambda reader, key: allocated.append(reader.path) or read(reader, key))
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    started = time.process_time()
    with pytest.raises(Mv3dError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert str(path.parent) not in {str(file.parent) for file in allocated}
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "text", ['{"a":' * 100_000 + "1" + "}" * 100_000, "[" * 100_000, '{"hidden_size": ' + "9" * 10_000 + "}", "\x00"]
)
@pytest.mark.parametrize("file", [UNET, ENCODER, "model_index.json"])
def test_json_that_cannot_be_read_is_one_line(folder, file, text):
    (folder / file).write_text(text)
    with pytest.raises(Mv3dError, match=f"{file} is no readable JSON") as caught:
        load_model(folder)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("file", [UNET, "scheduler/scheduler_config.json", "model_index.json"])
def test_a_pipe_in_a_model_folder_is_one_line(svd_folder, tmp_path, file):
    folder = shutil.copytree(svd_folder, tmp_path / "svd")
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(Mv3dError, match=f"{file} is no readable JSON: it is a pipe"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution_px": 10**9}, "resolution_px 1000000000 is no whole number from 8 to 4096"),
        ({"resolution_px": 33}, "resolution_px 33 in the autoencoder's cells of 2 px"),
        ({"num_views": 0}, "num_views 0 is no whole number"),
        ({"num_steps": 10**9}, "num_steps 1000000000 is no whole number from 1 to 1000"),
        ({"sigma_max": float("nan")}, "sigma_max nan is no range"),
        ({"sigma_min": 0}, "sigma_min 0 to sigma_max"),
        ({"sigma_max": "high"}, "sigma_max 'high' is no range"),
        ({"guidance": "round"}, "guidance 'round' is none of"),
        ({"guidance_high": float("inf")}, "guidance_high inf is no finite number"),
        ({"added_time_ids": ["a"]}, "is no finite number"),
        ({"added_time_ids": [1.0] * 50}, "ids and added_time_ids are 3.0 and 50"),
        ({"turns": "yes"}, "turns is true or false"),
    ],
)
def test_facts_that_cannot_be_are_one_line(folder, changes, message):
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"mv3d": index["mv3d"] | changes}))
    with pytest.raises(Mv3dError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder", "coarse"])
@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_weights_that_are_not_finite_are_an_error(folder, part, value):
    path = next((folder / part).glob("*.safetensors"))
    state = load_file(path)
    name = next(key for key, tensor in state.items() if tensor.numel() > 1)
    state[name].view(-1)[-1] = value
    save_file(state, path)
    with pytest.raises(Mv3dError, match=f"{part}.* is damaged: {name} holds NaN or infinite numbers as float32"):
        load_model(folder)


def test_weights_too_large_for_half_precision_are_an_error(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_file({"weight": torch.full((2, 2), 1e6), "bias": torch.zeros(2)}, tmp_path / "model.safetensors")
    load_module(lambda _: nn.Linear(2, 2), tmp_path, dtype=torch.bfloat16)
    with pytest.raises(Mv3dError, match="weight holds NaN or infinite numbers as float16"):
        load_weights(tmp_path, torch.float16)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s["model.diffusion_model.out.2.bias"].fill_(float("nan")), "out.2.bias holds NaN"),
        (
            lambda s: s.update({"model.diffusion_model.input_blocks.900000000.0.op.weight": torch.zeros(1)}),
            "lacks|too much|unknown",
        ),
        (
            lambda s: s.update({"conditioner.embedders.1.encoder.encoder.down.0.block.900000000.conv1.weight": s["x"]}),
            "layers_per_block 9e[+]08 is too much",
        ),
        (
            lambda s: s.update({"model.diffusion_model.input_blocks.1.0.out_layers.3.weight": torch.zeros(0, 64)}),
            "block_out_channels 0 is too little",
        ),
        (
            lambda s: s.update({"conditioner.embedders.0.open_clip.model.visual.conv1.weight": torch.zeros(40, 3)}),
            "has other dimensions",
        ),
    ],
)
def test_single_files_that_cannot_be_are_one_line(tmp_path, damage, message):
    state = make_state("SV3D_p") | {"x": torch.zeros(64, 1, 1, 1)}
    damage(state)
    del state["x"]
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "bad.safetensors")
    started = time.process_time()
    with pytest.raises(Mv3dError, match=message) as caught:
        load_model(tmp_path / "bad.safetensors")
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 3

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPVisionModelWithProjection

from mv3d.errors import Mv3dError
from mv3d.model.checkpoints import ModelFacts, OrbitModel, load_model, load_module, load_strict, save_model, save_module
from mv3d.model.unet import OrbitUNet
from tests.tiny import TINY_UNET, make_coarse_net, make_rgba_vae, tiny_vision_config

FACTS = ModelFacts("tiny", "CC0-1.0", 32, 5, (0.0, 0.0, 1e-5), 0.01, 90.0, 3, "triangle", 1.0, 2.0, 7, False)


def make_image_encoder() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(tiny_vision_config()).eval()


@pytest.fixture(scope="module")
def model() -> OrbitModel:
    torch.manual_seed(0)
    unet = OrbitUNet(**TINY_UNET, pose_embed_dim=16, coarse_channels=4)
    vae, coarse = make_rgba_vae(scaling_factor=0.7), make_coarse_net()
    return OrbitModel(unet.eval(), vae.eval(), make_image_encoder(), FACTS, coarse.eval())


@pytest.fixture
def folder(model: OrbitModel, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "model", dtype=torch.float32)
    return tmp_path / "model"


def networks(model: OrbitModel) -> dict[str, nn.Module]:
    found = {name: getattr(model, name) for name in ("unet", "vae", "image_encoder", "coarse")}
    return {name: network for name, network in found.items() if network is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_a_model_comes_back_as_it_was_saved(model, tmp_path, dtype):
    save_model(model, tmp_path / "model", dtype=dtype)
    again = load_model(tmp_path / "model")
    assert again.facts == FACTS
    assert again.coarse.config == model.coarse.config
    assert again.vae.config["scaling_factor"] == 0.7
    for name, network in networks(model).items():
        state = networks(again)[name].state_dict()
        assert not networks(again)[name].training
        assert state.keys() == network.state_dict().keys()
        for key, value in network.state_dict().items():
            assert torch.equal(state[key], value.to(dtype).float()), key
    sample, context = torch.randn(1, 2, 12, 4, 4), torch.randn(1, 1, 16)
    inputs = (sample, torch.zeros(1), context, torch.ones(1, 3), torch.rand(1, 2, 2))
    if dtype == torch.float32:
        assert torch.equal(again.unet(*inputs), model.unet(*inputs))
        pixels = torch.rand(1, 3, 32, 32)  # also reads the encoder's buffers, which are in no file
        assert torch.equal(again.image_encoder(pixels).image_embeds, model.image_encoder(pixels).image_embeds)


def test_a_model_loads_in_half_precision_but_its_geometry_does_not(folder):
    model = load_model(folder, dtype=torch.bfloat16)
    dtypes = {name: {p.dtype for p in network.parameters()} for name, network in networks(model).items()}
    assert dtypes.pop("coarse") == {torch.float32}
    assert all(kinds == {torch.bfloat16} for kinds in dtypes.values())


def test_the_layout_is_what_diffusers_and_transformers_read(folder, model):
    assert EulerDiscreteScheduler.from_pretrained(folder / "scheduler").config["sigma_max"] == 90.0
    assert AutoencoderKL.from_pretrained(folder / "vae").config["in_channels"] == 4
    assert OrbitUNet.from_pretrained(folder / "unet").config["coarse_channels"] == 4
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder")
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(encoder(pixels).image_embeds, model.image_encoder(pixels).image_embeds)


@torch.no_grad()
def test_a_stock_svd_folder_loads_and_computes_svd(tmp_path):
    torch.manual_seed(0)
    stock = UNetSpatioTemporalConditionModel(**TINY_UNET).eval()
    stock.save_pretrained(tmp_path / "unet", variant="fp16")
    make_rgba_vae(scaling_factor=0.7).save_pretrained(tmp_path / "vae")
    make_image_encoder().save_pretrained(tmp_path / "image_encoder")
    EulerDiscreteScheduler(sigma_min=0.002, sigma_max=500.0).save_pretrained(tmp_path / "scheduler")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    model = load_model(tmp_path)
    assert model.coarse is None
    assert model.facts.sigma_max == 500.0
    assert model.facts.added_time_ids == (6.0, 127.0, 0.02)
    inputs = (torch.randn(2, 3, 8, 4, 4), torch.zeros(2), torch.randn(2, 1, 16), torch.ones(2, 3))
    assert torch.equal(model.unet(*inputs, torch.rand(2, 3, 2)), stock(*inputs).sample)


def test_weights_that_do_not_fit_are_refused_with_their_keys():
    module = nn.ModuleDict({f"layer_{k:02d}": nn.Linear(2, 2, bias=False) for k in range(20)})
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {key: torch.zeros(2, 2) for key in list(before)[10:]}
    state["layer_19.weight"] = torch.zeros(2, 5)
    state["stray"] = torch.zeros(1)
    with pytest.raises(Mv3dError) as caught:
        load_strict(module, state, "here")
    missing = ", ".join(f"layer_{k:02d}.weight" for k in range(8))
    assert str(caught.value) == (
        f"the weights in here do not fit the network: 10 missing: {missing}, ...; 1 unknown: stray; "
        "1 of another shape: layer_19.weight (2, 5) instead of (2, 2)"
    )
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_checkpoint_of_the_wrong_shape_lists_its_keys(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["conv_in.weight"] = torch.zeros(32, 8, 3, 3)
    save_file(state, path)
    with pytest.raises(Mv3dError, match=r"unet.*conv_in.weight \(32, 8, 3, 3\) instead of \(32, 12, 3, 3\)"):
        load_model(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"\x08" * 99),
            "no readable safetensors",
        ),
        (lambda f: (f / "unet/diffusion_pytorch_model.safetensors").unlink(), "pickled weights are not read"),
        (lambda f: (f / "vae/config.json").write_text("{"), r"vae/config.json is no readable JSON"),
        (lambda f: (f / "vae/config.json").write_text('{"_class_name": "VQModel"}'), "VQModel is no autoencoder"),
        (lambda f: (f / "coarse/config.json").write_text('{"grid": 3}'), "grid"),
        (
            lambda f: (f / "coarse").rename(f / "volume"),
            "has a volume/, which is read no more, .* train its stage coarse",
        ),
        (lambda f: (f / "model_index.json").unlink(), r"model_index.json is missing"),
        (lambda f: (f / "model_index.json").write_text(json.dumps({"mv3d": {"name": "x"}})), "no name or licence"),
    ],
)
def test_a_damaged_folder_is_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(Mv3dError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(Mv3dError, match="there is no model nothing"):
        load_model("nothing")
    with pytest.raises(Mv3dError, match="there is no model"):
        load_model(tmp_path / "absent")


def test_an_existing_folder_is_kept(folder, model):
    with pytest.raises(Mv3dError, match="exists already"):
        save_model(model, folder)
    save_model(model, folder, overwrite=True)
    assert load_model(folder).facts == FACTS


def test_one_network_comes_back(tmp_path):
    layer = nn.Linear(3, 2)
    save_module(layer, {"width": 3}, tmp_path / "layer")
    again = load_module(lambda config: nn.Linear(config["width"], 2), tmp_path / "layer")
    assert all(torch.equal(value, layer.state_dict()[key]) for key, value in again.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layer"]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "layer").iterdir())

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mv3d.errors import Mv3dError
from mv3d.model.checkpoints import ModelFacts, OrbitModel
from mv3d.model.lora import (
    LoraUse,
    add_lora,
    lora_tensors,
    parse_lora,
    save_lora,
    targets_pattern,
    train_pose_columns,
    with_loras,
)
from mv3d.model.lora_file import LoraFacts, read_lora
from mv3d.model.surgery import from_stock
from mv3d.model.unet import OrbitUNet
from tests.tiny import TINY_UNET


def make_unet(stock) -> OrbitUNet:
    state = {key: value.clone() for key, value in stock.state_dict().items()}
    return from_stock(state, stock.config, pose_embed_dim=16).eval()


def make_model(unet: OrbitUNet) -> OrbitModel:
    return OrbitModel(unet, None, None, ModelFacts("base", "CC0-1.0"))


def make_file(stock, path: Path, *, seed: int, rank: int = 2, alpha: float = 3.0, targets="temporal_attention") -> Path:
    """A LoRA of random values, as if it had been trained, with a pose part."""
    unet = make_unet(stock)
    first = TINY_UNET["projection_class_embeddings_input_dim"]
    pose_base = unet.add_embedding.linear_1.weight[:, first:].clone()
    add_lora(unet, rank, alpha, targets)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in lora_tensors(unet.state_dict(), "default").values():
            value.copy_(0.3 * torch.randn(value.shape, generator=generator))
        pose = unet.add_embedding.linear_1.weight[:, first:]
        pose.copy_(0.3 * torch.randn(pose.shape, generator=generator))
    save_lora(
        unet, path, LoraFacts("base", "CC0-1.0", rank, alpha, targets_pattern(targets), True), pose_base=pose_base
    )
    return path


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, 3, 8, 4, 4, generator=generator)
    context, ids = torch.randn(2, 1, 16, generator=generator), torch.tensor([[6.0, 127.0, 0.02]] * 2)
    return sample, torch.randn(2, generator=generator), context, ids, torch.rand(2, 3, 2, generator=generator) * 6


@torch.no_grad()
def by_hand(stock, uses: list[tuple[Path, float]]) -> OrbitUNet:
    """W + scale * alpha / rank * B A, for every file (Hu et al. 2021, eq. 3)."""
    unet = make_unet(stock)
    for path, scale in uses:
        tensors = load_file(path)
        facts = read_lora(path).facts
        for key, b in tensors.items():
            if key.endswith(".lora_B.weight"):
                a = tensors[key.replace("lora_B", "lora_A")]
                module = unet.get_submodule(key.removeprefix("unet.").removesuffix(".lora_B.weight"))
                product = (b.flatten(1) @ a.flatten(1)).view_as(module.weight)  # convolutions: 1x1 behind 3x3
                module.weight += scale * facts.alpha / facts.rank * product
        unet.add_embedding.linear_1.weight[:, 24:] += scale * tensors["pose.add_embedding.linear_1.weight"]
    return unet


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [True, False])
@torch.no_grad()
def test_several_add_up_at_their_scales(stock, unet, tmp_path, fuse):
    first = make_file(stock, tmp_path / "first.safetensors", seed=1)
    second = make_file(stock, tmp_path / "second.safetensors", seed=2, rank=3, targets="all")
    model = with_loras(make_model(unet), [LoraUse(first, 0.5), LoraUse(second, -1.5)], fuse=fuse)
    expected = by_hand(stock, [(first, 0.5), (second, -1.5)])
    torch.testing.assert_close(model.unet(*inputs()), expected(*inputs()), rtol=1e-4, atol=1e-4)
    assert (model.unet(*inputs()) - make_unet(stock)(*inputs())).abs().max() > 1e-2
    assert model.facts.name == "base + first:0.5 + second:-1.5"
    # Fused, the network has its own layers again and nothing else.
    assert (model.unet.state_dict().keys() == expected.state_dict().keys()) == fuse


@torch.no_grad()
def test_none_at_all_changes_nothing(stock, unet, tmp_path):
    path = make_file(stock, tmp_path / "x.safetensors", seed=1)
    model = with_loras(make_model(unet), [LoraUse(path, 0.0)])
    assert torch.equal(model.unet(*inputs()), make_unet(stock)(*inputs()))
    assert with_loras(make_model(unet), []).facts.name == "base"


def test_an_untrained_adapter_is_nothing_and_learns_only_its_own(stock, unet):
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    add_lora(unet, 4, 4.0, "temporal_attention", seed=3)
    train_pose_columns(unet)
    with torch.no_grad():
        torch.testing.assert_close(unet(*inputs()), stock(*inputs()[:4]).sample, rtol=0, atol=1e-5)
    names = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert "add_embedding.linear_1.weight" in names
    names.remove("add_embedding.linear_1.weight")
    assert names
    assert all(".temporal_transformer_blocks." in name and ".lora_" in name and ".attn" in name for name in names)
    optimizer = torch.optim.Adam([p for p in unet.parameters() if p.requires_grad], lr=0.1)
    unet(*inputs()).square().mean().backward()
    optimizer.step()
    after = unet.state_dict()
    for key, value in before.items():
        now = after.get(
            key, after.get(key.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias"))
        )
        if key == "add_embedding.linear_1.weight":
            assert torch.equal(now[:, :24], value[:, :24])  # SVD's own columns
            assert not torch.equal(now[:, 24:], value[:, 24:])
        else:
            assert torch.equal(now, value), key


def test_the_file_says_what_it_is_and_diffusers_reads_it(stock, unet, tmp_path):
    path = make_file(stock, tmp_path / "x.safetensors", seed=1)
    tensors = load_file(path)
    assert read_lora(path).facts == LoraFacts("base", "CC0-1.0", 2, 3.0, targets_pattern("temporal_attention"), True)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["lora_adapter_metadata"])["unet.r"] == 2
    written = json.loads(metadata["lora_adapter_metadata"])
    unet.load_lora_adapter(load_file(path), prefix="unet", adapter_name="x", metadata=written)
    read = lora_tensors(unet.state_dict(), "x")
    assert read
    assert all(torch.equal(value, tensors[f"unet.{key}"]) for key, value in read.items())


def test_one_for_another_model_is_refused_with_its_keys(stock, unet, tmp_path):
    path = make_file(stock, tmp_path / "x.safetensors", seed=1)
    tensors = load_file(path)
    gone = next(key for key in tensors if key.endswith("attn1.to_q.lora_A.weight")).removesuffix(".lora_A.weight")
    broken = {key: value for key, value in tensors.items() if not key.startswith(gone)}
    broken |= {f"unet.stray.lora_{half}.weight": torch.zeros(2, 2) for half in "AB"}
    with safe_open(path, framework="pt") as file:
        save_file(broken, tmp_path / "broken.safetensors", metadata=file.metadata())
    with pytest.raises(Mv3dError, match=rf"made for base,.*2 missing: {gone[5:]}.*; 2 unknown: stray.lora_A.weight"):
        with_loras(make_model(unet), [LoraUse(tmp_path / "broken.safetensors")])
    other = OrbitUNet(**TINY_UNET, pose_embed_dim=8)
    with pytest.raises(Mv3dError, match=r"its pose part is \(128, 32\) instead of \(128, 16\)"):
        with_loras(make_model(other), [LoraUse(path)])


def test_names_and_scales_are_told_apart(tmp_path):
    for name in ("a.safetensors", "b:2", "folder/pytorch_lora_weights.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert parse_lora(f"{tmp_path}/a.safetensors") == LoraUse(tmp_path / "a.safetensors", 1.0)
    assert parse_lora(f"{tmp_path}/a.safetensors:-0.5") == LoraUse(tmp_path / "a.safetensors", -0.5)
    assert parse_lora(f"{tmp_path}/b:2") == LoraUse(tmp_path / "b:2", 1.0)
    assert parse_lora(f"{tmp_path}/folder:3").path.name == "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize(("rank", "alpha"), [(10**9, 3.0), (3, 3.0), (2, float("nan"))])
def test_a_rank_that_its_tensors_do_not_have_is_one_line(stock, tmp_path, rank, alpha):
    """Before an adapter of that rank is made, which for 10^9 would take all memory."""
    path = make_file(stock, tmp_path / "a.safetensors", seed=0)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    facts = json.loads(header["mv3d"]) | {"rank": rank, "alpha": alpha}
    save_file(load_file(path), path, metadata=header | {"mv3d": json.dumps(facts)})
    with pytest.raises(Mv3dError, match=f"rank {rank} and alpha {alpha}, but tensors of rank"):
        read_lora(path)


def test_a_lora_that_is_not_finite_is_an_error(stock, tmp_path):
    path = make_file(stock, tmp_path / "a.safetensors", seed=0)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    state = load_file(path)
    next(iter(state.values())).view(-1)[0] = float("nan")
    save_file(state, path, metadata=header)
    with pytest.raises(Mv3dError, match="holds NaN or infinite numbers"):
        read_lora(path)

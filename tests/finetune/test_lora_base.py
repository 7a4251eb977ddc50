"""A LoRA beside frozen weights in bfloat16, in 8 bits and in main memory: it learns what it learns beside float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from finetune.base_storage import Float8Weight, Lane, MainMemoryWeight, StoredProduct, store_base
from finetune.read_config import load_config
from finetune.stages.diffusion import DiffusionTraining
from mv3d.errors import Mv3dError

LORA = "lora: {{rank: 2, alpha: 2, targets: temporal_attention, base_storage: {}}}\n"
MIXED = ["diffusion.loop.bfloat16=true"]


@pytest.mark.slow
def test_a_base_in_bfloat16_takes_half_the_memory_and_gives_the_same_gradients(write_recipe, tmp_path):
    gradients, sizes, losses = [], [], []
    for name in ("float32", "bfloat16"):
        stage = DiffusionTraining(load_config(write_recipe(name, LORA.format(name)), MIXED))
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = stage.loss(0, torch.Generator().manual_seed(0))
        loss.backward()
        trained = [p for p in stage.network.parameters() if p.requires_grad]
        frozen = [p for p in stage.network.parameters() if not p.requires_grad]
        assert {p.dtype for p in trained} == {torch.float32}
        gradients.append(torch.cat([p.grad.flatten() for p in trained]))
        sizes.append(sum(p.numel() * p.element_size() for p in frozen))
        losses.append(loss.item())
        sheet = tmp_path / "sheet.jpg"
        assert stage.validate(stage.network, sheet) == {}  # nothing is held out here
        stage.close()
    assert sizes[1] < 0.52 * sizes[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    one, two = gradients
    assert one.any()
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.99


def step(recipe: Path, rounded: bool = False) -> tuple[float, torch.Tensor, int]:
    """Loss and gradients of a step, and bytes of what is frozen on the device."""
    stage = DiffusionTraining(load_config(recipe, MIXED))
    unet = stage.networks.unet
    for module in unet.modules():
        if rounded and type(module) in (nn.Linear, nn.Conv2d, nn.Conv3d) and not module.weight.requires_grad:
            module.weight.data = Float8Weight(module.weight.data).fetch()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = stage.loss(0, torch.Generator().manual_seed(0))
    loss.backward()
    stage.close()
    frozen = sum(p.numel() * p.element_size() for p in unet.parameters() if not p.requires_grad)
    frozen += sum(module.kept.device_bytes for module in unet.modules() if isinstance(module, StoredProduct))
    return loss.item(), torch.cat([p.grad.flatten() for p in unet.parameters() if p.requires_grad]), frozen


@pytest.mark.slow
def test_a_base_in_main_memory_gives_the_gradients_of_bfloat16_bit_for_bit(write_recipe):
    (loss, gradient, size), (other_loss, other_gradient, other_size) = (
        step(write_recipe(name, LORA.format(name))) for name in ("bfloat16", "cpu")
    )
    assert other_loss == loss
    assert gradient.any()
    assert torch.equal(other_gradient, gradient)
    assert other_size < 0.1 * size


def test_a_base_in_8_bits_gives_the_gradients_of_its_rounded_weights_bit_for_bit(write_recipe):
    loss, gradient, size = step(write_recipe("float8", LORA.format("float8")))
    rounded_loss, rounded_gradient, plain_size = step(write_recipe("bfloat16", LORA.format("bfloat16")), rounded=True)
    assert loss == rounded_loss
    assert gradient.any()
    assert torch.equal(gradient, rounded_gradient)
    assert size < 0.6 * plain_size


def test_8_bits_round_as_it_is_said():
    weight = torch.randn(32, 16, 3, 3) * torch.logspace(-6, 6, 32)[:, None, None, None]
    weight[3] = 0
    found = Float8Weight(weight).fetch().float()
    bound = torch.maximum(weight.abs() / 16, weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 229376)
    assert ((found - weight).abs() <= bound).all()
    assert ((found - weight).square().sum() / weight.square().sum()).sqrt() < 0.03


def test_the_next_weight_is_on_its_way_there_and_back():
    lane = Lane(torch.device("cpu"))
    weights = [MainMemoryWeight(torch.full((2,), float(k)), lane) for k in range(5)]
    order = [*weights, *reversed(weights)]
    for _ in range(3):
        before = lane.foreseen
        assert [weight.fetch()[0].item() for weight in order] == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    assert lane.foreseen - before == len(order)  # by then all of it has been seen


def test_what_is_trained_is_left_where_it_is():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False), nn.LayerNorm(4))
    store_base(network, "cpu", "cpu")
    assert [type(module) for module in network] == [nn.Linear, StoredProduct, nn.LayerNorm]
    assert network[0].weight.dtype == network[2].weight.dtype == torch.float32


def test_it_wants_products_in_bfloat16(write_recipe):
    recipe = write_recipe(more=LORA.format("bfloat16"))
    with pytest.raises(Mv3dError, match="base_storage bfloat16 wants diffusion.loop.bfloat16: true"):
        load_config(recipe)
    with pytest.raises(Mv3dError, match="shard wants one type of numbers"):
        load_config(recipe, [*MIXED, "diffusion.loop.shard=true"])

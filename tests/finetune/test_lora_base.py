"""A LoRA beside frozen weights in bfloat16: half the memory, and it learns what it learns beside float32."""

from __future__ import annotations

import pytest
import torch

from finetune.read_config import load_config
from finetune.stages.diffusion import DiffusionTraining
from mv3d.errors import Mv3dError

LORA = "lora: {{rank: 2, alpha: 2, targets: temporal_attention, base_dtype: {}}}\n"
MIXED = ["diffusion.loop.bfloat16=true"]


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


def test_it_wants_products_in_bfloat16(write_recipe):
    recipe = write_recipe(more=LORA.format("bfloat16"))
    with pytest.raises(Mv3dError, match="base_dtype bfloat16 wants diffusion.loop.bfloat16: true"):
        load_config(recipe)
    with pytest.raises(Mv3dError, match="shard wants one type of numbers"):
        load_config(recipe, [*MIXED, "diffusion.loop.shard=true"])

"""A UNet that torch compiles: the same frames, and one line where it cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mv3d.errors import Mv3dError
from mv3d.generate import GenerateSettings, generate_clip
from mv3d.model.checkpoints import OrbitModel
from mv3d.model.loading import load_ready_model
from mv3d.model.placement import Placement, compile_network
from mv3d.model_options import ModelOptions

# What torch's compiler imports of torch itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PICTURE = np.random.default_rng(0).random((64, 64, 4), dtype=np.float32)


def frames(model: OrbitModel) -> np.ndarray:
    small = replace(model, facts=replace(model.facts, resolution_px=64))
    return generate_clip(PICTURE, small, GenerateSettings(4, 20.0, steps=2)).frames


@pytest.mark.slow
def test_a_compiled_unet_gives_the_same_frames(svd_folder):
    torch.compiler.reset()
    plain = load_ready_model(str(svd_folder), "cpu", ModelOptions())
    compiled = load_ready_model(str(svd_folder), "cpu", ModelOptions(compile=True))
    made = frames(compiled)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1  # what is tried out before is one
    np.testing.assert_allclose(made, frames(plain), atol=1e-3)


@pytest.mark.slow
def test_no_compiler_is_one_line_with_the_option(svd_folder):
    import torch._inductor.config as config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(Mv3dError) as caught:
        load_ready_model(str(svd_folder), "cpu", ModelOptions(compile=True))
    assert "torch cannot compile for cpu here (" in str(caught.value)
    assert "no-such-compiler" in str(caught.value)
    assert "install a C++ compiler, such as g++, or leave it out" in str(caught.value)
    assert caught.value.argument == "compile"


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_on_a_cpu_16_bits_are_not_compiled(svd_folder, dtype):
    with pytest.raises(Mv3dError, match="take dtype fp32, or leave compile out") as caught:
        load_ready_model(str(svd_folder), "cpu", ModelOptions(dtype, compile=True))
    assert caught.value.argument == "dtype"


def test_layers_that_come_one_by_one_are_not_compiled():
    with pytest.raises(Mv3dError, match="take offload model, or leave compile out") as caught:
        compile_network(nn.Linear(2, 2), Placement(torch.device("cuda"), "sequential"))
    assert caught.value.argument == "offload"

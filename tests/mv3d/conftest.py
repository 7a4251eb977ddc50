from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from diffusers import UNetSpatioTemporalConditionModel

    from mv3d.model.unet import OrbitUNet


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights: 32 px, 5 views, 2 steps, a second of work."""
    import torch
    from transformers import CLIPVisionModelWithProjection

    from mv3d.model.checkpoints import ModelFacts, OrbitModel, save_model
    from mv3d.model.unet import OrbitUNet
    from tests.tiny import TINY_UNET, make_coarse_net, make_rgba_vae, tiny_vision_config

    torch.manual_seed(0)
    unet = OrbitUNet(**TINY_UNET, pose_embed_dim=16, coarse_channels=4)
    vae = make_rgba_vae()
    facts = ModelFacts("tiny", "CC0-1.0", resolution_px=32, num_views=5, added_time_ids=(0.0, 0.0, 1e-5), num_steps=2)
    encoder, coarse = CLIPVisionModelWithProjection(tiny_vision_config()), make_coarse_net()
    model = OrbitModel(unet.eval(), vae.eval(), encoder.eval(), facts, coarse.eval())
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(model, folder, dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def tiny_clip_model(svd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that makes clips, as stock SVD does: 32 px, one step."""
    from dataclasses import replace

    import torch

    from mv3d.model.checkpoints import load_model, save_model

    stock = load_model(svd_folder)
    facts = replace(stock.facts, name="tiny-clips", resolution_px=32, num_steps=1)
    folder = tmp_path_factory.mktemp("models") / "tiny-clips"
    save_model(replace(stock, facts=facts), folder, dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def stock() -> UNetSpatioTemporalConditionModel:
    """Stock SVD's UNet of random weights, tiny; not to be changed."""
    import torch
    from diffusers import UNetSpatioTemporalConditionModel

    from tests.tiny import TINY_UNET

    torch.manual_seed(0)
    return UNetSpatioTemporalConditionModel(**TINY_UNET).eval()


@pytest.fixture
def unet(stock: UNetSpatioTemporalConditionModel) -> OrbitUNet:
    """The same network with pose columns, which are zero."""
    from tests.mv3d.test_lora import make_unet

    return make_unet(stock)

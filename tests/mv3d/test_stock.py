"""A model without poses is a folder that diffusers' own pipeline loads, and one with poses is ours alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mv3d.model.checkpoints import OrbitModel, load_model, save_model
from mv3d.model.surgery import reconditioned
from tests.tiny import tiny_vision_config

SAMPLE = torch.randn(1, 2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
INPUTS = (SAMPLE, torch.zeros(1), torch.ones(1, 1, 16), torch.tensor([[6.0, 127.0, 0.02]]))


@pytest.fixture(scope="module")
def tuned(svd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> OrbitModel:
    """SVD trained without poses, with pictures for CLIP of the size that the pipeline gives."""
    folder = tmp_path_factory.mktemp("tuned") / "svd"
    shutil.copytree(svd_folder, folder)
    shutil.rmtree(folder / "image_encoder")
    vision = CLIPVisionConfig(**tiny_vision_config().to_dict() | {"image_size": 224, "patch_size": 112})
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
    model = load_model(folder)
    unet = reconditioned(model.unet, poses=False, cond_aug_only=False, input_last=False)
    with torch.no_grad():
        unet.conv_out.weight.normal_(std=0.1)
    return OrbitModel(unet, model.vae, model.image_encoder, model.facts)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, in its scheduler
@torch.no_grad()
def test_diffusers_loads_it_and_so_do_we(tuned, tmp_path):
    save_model(tuned, tmp_path / "model", dtype=torch.float32)
    pipeline = StableVideoDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert type(pipeline.unet).__name__ == "UNetSpatioTemporalConditionModel"
    torch.testing.assert_close(pipeline.unet(*INPUTS).sample, tuned.unet(*INPUTS), rtol=1e-4, atol=1e-4)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(Image.new("RGB", (32, 32)), 32, 32, num_frames=2, num_inference_steps=1, output_type="pt").frames
    assert made.shape == (1, 2, 3, 32, 32)

    again = load_model(tmp_path / "model")
    assert again.facts == tuned.facts
    assert again.unet.config["pose_embed_dim"] == 0  # not those that stock SVD gets
    assert torch.equal(again.unet(*INPUTS), tuned.unet(*INPUTS))


def test_one_with_poses_says_that_it_is_ours(svd_folder, tmp_path):
    save_model(load_model(svd_folder), tmp_path / "model")
    index = json.loads((tmp_path / "model/model_index.json").read_text())
    assert index["unet"] == ["mv3d.model.unet", "OrbitUNet"]
    assert not (tmp_path / "model/feature_extractor").exists()

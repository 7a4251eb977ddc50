"""Settings and fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine and no limit on their time: a loaded machine is no failure.
settings.register_profile("mv3d", derandomize=True, deadline=None)
settings.load_profile("mv3d")


@pytest.fixture
def blender() -> None:
    """Skips where there is no Blender."""
    from mv3d.blender import find_blender
    from mv3d.errors import Mv3dError

    try:
        find_blender()
    except Mv3dError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_blender(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Blender, whatever this one has."""
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.delenv("MV3D_BLENDER", raising=False)
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setenv("XDG_DATA_HOME", str(empty))
    monkeypatch.setattr("mv3d.blender._CLONE", empty)
    monkeypatch.chdir(empty)


@pytest.fixture(scope="session")
def svd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stock SVD as it is on the hub, but tiny: 32 px, latents of 4 px, no pose columns, a licence beside it."""
    import torch
    from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionModelWithProjection

    from tests.tiny import TINY_UNET, tiny_vision_config

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("svd") / "tiny-svd"
    unet = UNetSpatioTemporalConditionModel(**TINY_UNET)
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=1
    )
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    CLIPVisionModelWithProjection(tiny_vision_config()).save_pretrained(folder / "image_encoder")
    EulerDiscreteScheduler(sigma_min=0.002, sigma_max=700.0).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    (folder / "LICENSE.md").write_text("Non-commercial.")
    return folder

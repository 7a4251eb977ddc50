from pathlib import Path

import numpy as np
import pytest
import torch

from eval.metrics.clip import CLIP_VARIABLE, load_clip
from eval.metrics.perceptual import compare_pictures, load_perceptual_metrics
from mv3d.errors import Mv3dError


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A CLIP model of the published format with random weights: both towers, as OpenAI's repositories hold them."""
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config=small | {"vocab_size": 99, "projection_dim": 12},
            vision_config=small | {"image_size": 32, "patch_size": 8, "projection_dim": 12},
            projection_dim=12,
        )
    )
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    return folder


def test_scores_are_cosines_of_the_whole_models_image_embeddings(clip_folder):
    from transformers import CLIPModel

    rng = np.random.default_rng(0)
    pred, truth = (rng.random((3, 32, 32, 3)).astype(np.float32) for _ in range(2))  # of its own size: no resizing
    scores = compare_pictures([load_clip(str(clip_folder))], truth, {"m": pred})["m"]["clip_s"]
    model = CLIPModel.from_pretrained(clip_folder).eval()
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    embeddings = []
    for pictures in (pred, truth):
        pixels = torch.from_numpy(((pictures - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
        with torch.no_grad():
            pooled = model.vision_model(pixel_values=pixels).pooler_output
            embeddings.append(model.visual_projection(pooled).numpy())
    a, b = embeddings
    expected = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_preprocessing_is_that_of_the_published_processor(clip_folder):
    """PIL resizes eight-bit pictures; ours does the same in floating point."""
    processing = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    data = pytest.importorskip("skimage.data")
    picture = data.coffee()[40:200, 60:180]
    processor = processing.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = torch.from_numpy(np.asarray(processor(picture, return_tensors="np")["pixel_values"]))
    clip = load_clip(str(clip_folder))
    seen = []
    clip.encoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    with torch.no_grad():
        clip.features(torch.from_numpy(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255))
    assert (seen[0] - expected).abs().mean() < 0.01
    assert (seen[0] - expected).abs().max() < 0.06  # about two grey levels over a standard deviation of 69


def test_the_variable_names_a_folder_and_else_the_metric_is_absent(clip_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv(CLIP_VARIABLE, str(clip_folder))
    networks, absent = load_perceptual_metrics([], "openai/clip-vit-base-patch32")
    assert [network.key for network in networks] == ["clip_s"]
    assert absent == {}
    monkeypatch.setenv(CLIP_VARIABLE, str(tmp_path))
    with pytest.raises(Mv3dError, match="is no CLIP model"):
        load_clip("openai/clip-vit-base-patch32")
    networks, absent = load_perceptual_metrics([], "openai/clip-vit-base-patch32")
    assert networks == []
    assert CLIP_VARIABLE in absent["clip_s"]

import sys

import numpy as np
import pytest
import torch

from eval.metrics.dists import Dists, load_dists
from eval.metrics.perceptual import load_perceptual_metrics
from eval.metrics.weights import FETCH_COMMAND, dists_file, lpips_file
from mv3d.errors import Mv3dError


def _pictures() -> torch.Tensor:
    """Two noise pictures and two photographs, (4, 3, 64, 80)."""
    data = pytest.importorskip("skimage.data")
    noise = np.random.default_rng(0).random((2, 64, 80, 3))
    crops = np.stack([data.coffee()[40:104, 60:140], data.cat()[40:104, 60:140]]) / 255
    return torch.from_numpy(np.concatenate([noise, crops]).transpose(0, 3, 1, 2).astype(np.float32))


@pytest.fixture
def network() -> Dists:
    """Genuine weights where they are, else random ones: both sides get the same."""
    if dists_file().is_file() and lpips_file("vgg").is_file():
        return load_dists()
    torch.manual_seed(0)
    model = Dists()
    model.alpha.copy_(torch.rand(1475))
    model.beta.copy_(torch.rand(1475))
    return model


@pytest.mark.weights
@pytest.mark.filterwarnings("ignore")
def test_equals_the_dists_package_side_by_side(network, layer_lists, monkeypatch):
    package = pytest.importorskip("DISTS_pytorch.DISTS_pt", reason="pip install --no-deps dists-pytorch==0.1")
    theirs = package.DISTS(load_weights=False)
    convolutions = [m for s in (f"stage{k}" for k in range(1, 6)) for m in getattr(theirs, s) if hasattr(m, "bias")]
    for conv, mine in zip(convolutions, network.convs, strict=True):
        conv.load_state_dict(mine.state_dict())
    theirs.alpha.data = network.alpha.data.view(1, -1, 1, 1)
    theirs.beta.data = network.beta.data.view(1, -1, 1, 1)
    pictures = _pictures()
    with torch.no_grad():
        expected = theirs(pictures[::2], pictures[1::2])
        ours = network.compare(network.features(pictures[::2]), network.features(pictures[1::2]))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    sys.modules.pop("DISTS_pytorch.DISTS_pt", None)  # it holds on to the stand-ins for torchvision


def test_equal_pictures_have_no_distance(network):
    pictures = _pictures()
    features = network.features(pictures)
    torch.testing.assert_close(network.compare(features, features), torch.zeros(4), atol=1e-5, rtol=0)


def test_missing_weights_name_the_command_and_the_metric_is_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(Mv3dError, match=FETCH_COMMAND):
        load_dists(tmp_path)
    monkeypatch.setenv("MV3D_CACHE", str(tmp_path))
    networks, absent = load_perceptual_metrics(["alex", "squeeze"], dists=True)
    assert networks == []
    assert list(absent) == ["lpips_alex", "lpips_squeeze", "dists"]
    assert all(FETCH_COMMAND in reason for reason in absent.values())

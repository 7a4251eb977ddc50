import numpy as np
import pytest
import torch

from eval.metrics.lpips import Lpips, load_lpips
from eval.metrics.weights import FETCH_COMMAND, LPIPS_NETWORKS, lpips_file
from mv3d.errors import Mv3dError

# lpips 0.1.4 (pip) with torchvision's weights on `_pair(seed, height, width)`
GOLDEN = [
    ("alex", 0, 64, 64, 0.21018575),
    ("alex", 1, 128, 96, 0.34049931),
    ("alex", 3, 32, 32, 0.17042834),
    ("vgg", 0, 64, 64, 0.41922963),
    ("vgg", 1, 128, 96, 0.41660804),
    ("vgg", 3, 32, 32, 0.39060718),
]


def _pair(seed: int, height: int, width: int) -> torch.Tensor:
    """Two noisy mosaics with a white margin on top, (2, 3, height, width)."""
    rng = np.random.default_rng(seed)
    mosaics = rng.random((2, height // 8, width // 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    pictures = (0.9 * mosaics + 0.1 * rng.random(mosaics.shape)).astype(np.float32)
    pictures[:, :8] = 1
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())


@pytest.fixture
def genuine(request) -> Lpips:
    if not lpips_file(request.param).is_file():
        pytest.skip(f"no weights of LPIPS ({request.param}) in the cache: {FETCH_COMMAND}")
    return load_lpips(request.param)


@pytest.mark.weights
@pytest.mark.parametrize(
    ("genuine", "seed", "height", "width", "expected"),
    GOLDEN,
    indirect=["genuine"],
    ids=[f"{g[0]}-{g[1]}" for g in GOLDEN],
)
def test_genuine_distances(genuine, seed, height, width, expected):
    pred, truth = _pair(seed, height, width)
    with torch.no_grad():
        assert genuine(pred[None], truth[None]).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.weights
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("net", LPIPS_NETWORKS)
def test_equals_the_lpips_package_side_by_side(net, layer_lists):
    """Its code and its own linear layers, on convolutions that both share: genuine ones where they are."""
    package = pytest.importorskip("lpips", reason="pip install --no-deps lpips==0.1.4")
    theirs = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    ours = load_lpips(net) if lpips_file(net).is_file() else Lpips(net)
    convolutions = [module for module in theirs.net.modules() if isinstance(module, torch.nn.Conv2d)]
    for conv, mine in zip(convolutions, ours.convs, strict=True):
        (conv if lpips_file(net).is_file() else mine).load_state_dict(
            (mine if lpips_file(net).is_file() else conv).state_dict()
        )
    for linear, mine in zip(theirs.lins, ours.lins, strict=True):
        if lpips_file(net).is_file():
            torch.testing.assert_close(mine.weight, linear.model[1].weight, rtol=0, atol=0)
        else:
            mine.weight.copy_(linear.model[1].weight)
    mosaics = torch.cat([_pair(seed, 64, 96) for seed in range(2)])
    pictures = torch.cat([mosaics, _photographs()])
    pred, truth = pictures[::2].requires_grad_(), pictures[1::2]
    expected, found = theirs(pred, truth, normalize=True).flatten(), ours(pred, truth)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    # As a loss too: what it teaches.
    slopes = [torch.autograd.grad(distances.sum(), pred)[0] for distances in (found, expected)]
    torch.testing.assert_close(*slopes, atol=1e-3 * float(slopes[1].abs().max()), rtol=1e-3)


def _photographs() -> torch.Tensor:
    data = pytest.importorskip("skimage.data")
    crops = np.stack([data.coffee()[40:104, 60:156], data.cat()[40:104, 60:156]])
    return torch.from_numpy(crops.transpose(0, 3, 1, 2).astype(np.float32) / 255)


@pytest.mark.parametrize("genuine", ["alex"], indirect=True)
def test_zero_for_equal_pictures_and_growing_with_noise(genuine):
    truth = _pair(0, 64, 64)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        values = torch.stack([genuine(truth + sigma * noise, truth) for sigma in (0, 0.05, 0.1, 0.2, 0.4)])
    assert (values[0] == 0).all()
    assert (values.diff(dim=0) > 0).all()


@pytest.mark.parametrize("net", LPIPS_NETWORKS)
def test_serves_as_a_loss(net):
    torch.manual_seed(0)
    network = Lpips(net)
    truth, start = _pair(0, 32, 32)[None, 0], torch.ones(1, 3, 32, 32, requires_grad=True)
    network(start, truth).sum().backward()
    assert start.grad is not None
    assert start.grad.isfinite().all()
    assert start.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_gradient_is_finite_where_all_features_are_zero():
    network = Lpips("alex")
    for conv in network.convs:
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    picture = torch.ones(1, 3, 32, 32, requires_grad=True)
    network(picture, torch.zeros(1, 3, 32, 32)).sum().backward()
    assert picture.grad is not None
    assert (picture.grad == 0).all()


def test_missing_weights_name_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(Mv3dError, match=FETCH_COMMAND):
        load_lpips("alex", cache=tmp_path)


def test_too_small_pictures():
    with pytest.raises(Mv3dError, match="at least 32 px a side, got 48x31"):
        Lpips("alex")(*torch.rand(2, 1, 3, 31, 48))

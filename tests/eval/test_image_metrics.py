import numpy as np
import pytest
import torch

from eval.metrics.images import MAX_PSNR_DB, SSIM_WINDOW_PX, mse, psnr, silhouette_iou, ssim, ssim_map


def _random_pair() -> tuple[np.ndarray, np.ndarray]:
    """Pictures on white, (4, 48, 40, 3), and noisy ones; the outermost 12 px are the same on both."""
    rng = np.random.default_rng(0)
    truth = np.ones((4, 48, 40, 3), dtype=np.float32)
    truth[:, 12:-12, 12:-12] = rng.random((4, 24, 16, 3))
    pred = truth.copy()
    pred[:, 12:-12, 12:-12] += 0.2 * rng.standard_normal((4, 24, 16, 3)).astype(np.float32)
    return np.clip(pred, 0, 1), truth


def _real_pair() -> tuple[np.ndarray, np.ndarray]:
    """Two photographs that ship with scikit-image, blurred by a shift, (2, 96, 96, 3)."""
    data = pytest.importorskip("skimage.data")
    pictures = np.stack([p[40:138, 60:158] for p in (data.coffee(), data.cat())]).astype(np.float32) / 255
    return (pictures[:, 2:, 2:] + pictures[:, :-2, :-2]) / 2, pictures[:, 1:-1, 1:-1]


@pytest.fixture(params=[_random_pair, _real_pair], ids=["random", "photographs"])
def pair(request) -> tuple[np.ndarray, np.ndarray]:
    return request.param()


def test_psnr_is_that_of_scikit_image(pair):
    metrics = pytest.importorskip("skimage.metrics")
    expected = [metrics.peak_signal_noise_ratio(t, p, data_range=1) for p, t in zip(*pair, strict=True)]
    np.testing.assert_allclose(psnr(*pair), expected, atol=1e-4)


def test_psnr_and_the_map_of_ssim_are_those_of_kornia(pair):
    """In double precision, and without the constant that kornia adds to the denominator: every pixel, border too."""
    metrics = pytest.importorskip("kornia.metrics")
    pred, truth = (torch.from_numpy(x.transpose(0, 3, 1, 2)).double() for x in pair)
    expected = [float(metrics.psnr(p, t, 1.0)) for p, t in zip(pred, truth, strict=True)]
    np.testing.assert_allclose(psnr(*pair), expected, atol=1e-9)
    expected = metrics.ssim(pred, truth, SSIM_WINDOW_PX, eps=0.0).mean(dim=1).numpy()
    np.testing.assert_allclose(ssim_map(*pair), expected, atol=1e-9)


def test_psnr_of_known_differences():
    grey = np.full((2, 8, 8, 3), 0.5)
    np.testing.assert_allclose(psnr(grey + [[[[0.1]]], [[[0.01]]]], grey), [20, 40])
    np.testing.assert_allclose(mse(grey + [[[[0.1]]], [[[0.01]]]], grey), [1e-2, 1e-4])
    np.testing.assert_array_equal(psnr(grey, grey), [MAX_PSNR_DB] * 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("margin", [0, 12], ids=["to the border", "with margin"])
def test_ssim_is_that_of_torchmetrics(margin):
    image = pytest.importorskip("torchmetrics.image")
    pred, truth = (x[:, 12 - margin : 36 + margin, 12 - margin : 28 + margin] for x in _random_pair())
    theirs = image.StructuralSimilarityIndexMeasure(reduction="none", data_range=1.0)
    expected = theirs(*(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (pred, truth)))
    np.testing.assert_allclose(ssim(pred, truth), expected.numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ssim_of_photographs_is_that_of_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.image")
    pred, truth = (torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in _real_pair())
    theirs = functional.structural_similarity_index_measure(pred, truth, reduction="none", data_range=1.0)
    np.testing.assert_allclose(ssim(*_real_pair()), theirs.numpy(), atol=1e-4)


def test_uniform_ssim_is_that_of_scikit_image_by_default(pair):
    metrics = pytest.importorskip("skimage.metrics")
    eight_bit = [np.round(x * 255).astype(np.uint8) for x in pair]
    expected = [metrics.structural_similarity(t, p, channel_axis=2) for p, t in zip(*eight_bit, strict=True)]
    np.testing.assert_allclose(ssim(*(x / 255 for x in eight_bit), "uniform"), expected, atol=1e-9)


def test_gaussian_ssim_is_that_of_scikit_image_apart_from_its_cropped_border():
    metrics = pytest.importorskip("skimage.metrics")
    pred, truth = _random_pair()
    cropped = [
        metrics.structural_similarity(
            p, t, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=-1
        )
        for p, t in zip(pred, truth, strict=True)
    ]
    # In the border of 5 px that scikit-image leaves out both are white: there the map is 1.
    inner = (48 - 10) * (40 - 10) / (48 * 40)
    np.testing.assert_allclose(1 - ssim(pred, truth), (1 - np.array(cropped)) * inner, atol=1e-5)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_of_equal_pictures_is_one_and_falls_with_noise(window):
    _, truth = _random_pair()
    noise = np.random.default_rng(1).standard_normal(truth.shape)
    values = [ssim(truth + sigma * noise, truth, window) for sigma in (0, 0.02, 0.05, 0.1, 0.3)]
    np.testing.assert_allclose(values[0], 1, atol=1e-12)
    assert (np.diff(values, axis=0) < 0).all()


def test_foreground_scores_look_at_the_object_only():
    pred, truth = _random_pair()
    inside = np.zeros(truth.shape[:3], dtype=bool)
    inside[:, 12:-12, 12:-12] = True
    expected = psnr(pred[:, 12:-12, 12:-12], truth[:, 12:-12, 12:-12])
    np.testing.assert_allclose(psnr(pred, truth, inside), expected)
    spoilt = np.where(inside[..., None], pred, 1 - pred)
    np.testing.assert_allclose(psnr(spoilt, truth, inside), expected)
    everywhere = np.ones(truth.shape[:3], dtype=bool)
    np.testing.assert_allclose(ssim(pred, truth, where=everywhere), ssim(pred, truth))
    np.testing.assert_allclose(ssim(pred, truth, "uniform", everywhere), ssim(pred, truth, "uniform"))
    # Where both are white, similarity is 1: the whole mean is the mean of both parts.
    share = inside.mean(axis=(1, 2))
    parts = ssim(pred, truth, where=inside) * share + ssim(pred, truth, where=~inside) * (1 - share)
    np.testing.assert_allclose(parts, ssim(pred, truth))
    assert np.isnan(psnr(pred, truth, np.zeros_like(inside))).all()


def test_silhouette_iou():
    square, shifted, empty = np.zeros((3, 8, 8))
    square[2:6, 2:6] = 1
    shifted[2:6, 4:8] = 0.5
    pred, truth = np.stack([square, shifted, empty, empty]), np.stack([square, square, square, empty])
    np.testing.assert_allclose(silhouette_iou(pred, truth), [1, 8 / 24, 0, 1])

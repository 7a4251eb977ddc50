import numpy as np
import pytest
import torch

from eval.metrics.images import MAX_PSNR_DB, psnr, silhouette_iou, ssim


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Pictures on white, (4, 48, 40, 3), and noisy ones; the outermost 12 px are the same on both."""
    rng = np.random.default_rng(0)
    truth = np.ones((4, 48, 40, 3), dtype=np.float32)
    truth[:, 12:-12, 12:-12] = rng.random((4, 24, 16, 3))
    pred = truth.copy()
    pred[:, 12:-12, 12:-12] += 0.2 * rng.standard_normal((4, 24, 16, 3)).astype(np.float32)
    return np.clip(pred, 0, 1), truth


def test_psnr_is_that_of_scikit_image(pair):
    metrics = pytest.importorskip("skimage.metrics")
    expected = [metrics.peak_signal_noise_ratio(t, p, data_range=1) for p, t in zip(*pair, strict=True)]
    np.testing.assert_allclose(psnr(*pair), expected, atol=1e-5)


def test_psnr_of_known_differences():
    grey = np.full((2, 8, 8, 3), 0.5)
    np.testing.assert_allclose(psnr(grey + [[[[0.1]]], [[[0.01]]]], grey), [20, 40])
    np.testing.assert_array_equal(psnr(grey, grey), [MAX_PSNR_DB] * 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("margin", [0, 12], ids=["to the border", "with margin"])
def test_ssim_is_that_of_torchmetrics(pair, margin):
    image = pytest.importorskip("torchmetrics.image")
    pred, truth = (x[:, 12 - margin : 36 + margin, 12 - margin : 28 + margin] for x in pair)
    theirs = image.StructuralSimilarityIndexMeasure(reduction="none", data_range=1.0)
    expected = theirs(*(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (pred, truth)))
    np.testing.assert_allclose(ssim(pred, truth), expected.numpy(), atol=1e-5)


def test_ssim_is_that_of_scikit_image_apart_from_its_cropped_border(pair):
    metrics = pytest.importorskip("skimage.metrics")
    pred, truth = pair
    cropped = [
        metrics.structural_similarity(
            p, t, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=-1
        )
        for p, t in zip(pred, truth, strict=True)
    ]
    # In the border of 5 px that scikit-image leaves out both are white: there the map is 1.
    inner = (48 - 10) * (40 - 10) / (48 * 40)
    np.testing.assert_allclose(1 - ssim(pred, truth), (1 - np.array(cropped)) * inner, atol=1e-5)


def test_ssim_of_equal_pictures_is_one_and_falls_with_noise(pair):
    _, truth = pair
    noise = np.random.default_rng(1).standard_normal(truth.shape)
    values = [ssim(truth + sigma * noise, truth) for sigma in (0, 0.02, 0.05, 0.1, 0.3)]
    np.testing.assert_allclose(values[0], 1, atol=1e-12)
    assert (np.diff(values, axis=0) < 0).all()


def test_silhouette_iou():
    square, shifted, empty = np.zeros((3, 8, 8))
    square[2:6, 2:6] = 1
    shifted[2:6, 4:8] = 0.5
    pred, truth = np.stack([square, shifted, empty, empty]), np.stack([square, square, square, empty])
    np.testing.assert_allclose(silhouette_iou(pred, truth), [1, 8 / 24, 0, 1])

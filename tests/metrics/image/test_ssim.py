# SPDX-License-Identifier: Apache-2.0
"""SSIM against published numbers and scikit-image."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from lipsync_bench.metrics.image import ssim as module
from lipsync_bench.metrics.image.ssim import ssim
from tests import golden

COLOUR, GRAY = 3, 9  # columns of the golden tables


@pytest.mark.parametrize("table", ["pairs_full", "pairs_crop", "pairs_camera"])
def test_golden(table, image_pairs, batched):
    values = [float(ssim(batched(pred), batched(target))) for target, pred in image_pairs[table]]
    assert values == pytest.approx(golden.arrays("metrics")[table][:, COLOUR], abs=1e-6)


@pytest.mark.parametrize("table", ["pairs_full", "pairs_crop"])
def test_golden_gray(table, image_pairs, batched, to_gray):
    values = [float(ssim(batched(to_gray(pred)), batched(to_gray(target)))) for target, pred in image_pairs[table]]
    assert values == pytest.approx(golden.arrays("metrics")[table][:, GRAY], abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(11, 11), (12, 40), (37, 23)])
def test_equals_scikit_image(height, width):
    random = np.random.default_rng(0)
    x, y = random.uniform(0, 255, (2, height, width, 3))
    expected = structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
    )
    pred, target = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (x, y))
    assert float(ssim(pred, target)) == pytest.approx(expected, abs=1e-12)


def test_bands_change_nothing(monkeypatch, image_pairs, batched):
    target, pred = (batched(image) for image in image_pairs["pairs_crop"][0])
    whole = float(ssim(pred, target))
    monkeypatch.setattr(module, "BAND_PIXELS", 7 * 160)  # 150 rows do not divide by 7
    assert float(ssim(pred, target)) == pytest.approx(whole, abs=1e-12)


def test_inverted_image_scores_far_below_zero():
    checker = (torch.arange(32)[:, None] // 2 + torch.arange(32) // 2) % 2 * 255.0
    assert float(ssim(checker[None, None], 255 - checker[None, None])) < -0.9


def test_too_small_image_is_refused():
    image = torch.zeros(1, 3, 10, 40, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"pred and target are 10 x 40 pixels. Expected at least 11 x 11"):
        ssim(image, image)


def test_falls_as_blur_and_noise_grow(image_pairs, batched):
    target = image_pairs["pairs_crop"][0][0]
    random = np.random.default_rng(0).normal(size=target.shape)
    blurred = [gaussian_filter(target.astype(np.float64), (sigma, sigma, 0)) for sigma in (0.5, 1, 2, 4)]
    noisy = [np.clip(target + sigma * random, 0, 255) for sigma in (2, 5, 10, 20)]
    for series in (blurred, noisy):
        values = [float(ssim(batched(pred), batched(target))) for pred in series]
        assert values == sorted(values, reverse=True)
        assert values[0] < 1


def test_has_a_gradient():
    random = torch.Generator().manual_seed(0)
    pred = (torch.rand(1, 1, 16, 16, generator=random) * 255).requires_grad_()
    ssim(pred, torch.rand(1, 1, 16, 16, generator=random) * 255).sum().backward()
    assert torch.isfinite(pred.grad).all()
    assert pred.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("images", "channels", "height", "width"),
    [(9, 3, 11, 11), (5, 3, 37, 23), (70, 1, 44, 77), (3, 3, 160, 160), (2, 3, 255, 257), (1, 3, 400, 401)],
)
def test_channels_scored_together_equal_each_scored_alone(images, channels, height, width):
    """As decoded, colours side by side, and as planes; the last two sizes are scored in bands."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (images, height, width, channels), dtype=np.uint8)
    pred, target = (torch.from_numpy(series).permute(0, 3, 1, 2) for series in (frames // 2 + 40, frames))
    alone = torch.stack(
        [
            torch.stack([ssim(p[None, None].contiguous(), t[None, None].contiguous())[0] for p, t in pair])
            for pair in (zip(p, t, strict=True) for p, t in zip(pred, target, strict=True))
        ]
    ).mean(dim=1)
    assert torch.equal(ssim(pred, target), alone)
    assert torch.equal(ssim(pred.contiguous(), target.contiguous()), alone)


def test_small_channels_are_scored_together_up_to_one_band(monkeypatch):
    sizes = []
    real = module._map

    def counting(x, y):
        sizes.append(tuple(x.shape))
        return real(x, y)

    monkeypatch.setattr(module, "_map", counting)
    images = torch.randint(0, 256, (4, 3, 160, 160), dtype=torch.uint8)
    ssim(images, images)
    assert sizes == [(5, 160, 160), (5, 160, 160), (2, 160, 160)]  # 5 * 160 * 160 <= 2^17 pixels

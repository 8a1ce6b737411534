# SPDX-License-Identifier: Apache-2.0
"""Mean squared error against published numbers and scikit-image."""

import pytest
import torch
from skimage.metrics import mean_squared_error

from lipsync_bench.metrics.image.mse import mse
from lipsync_bench.metrics.image.psnr import psnr
from tests import golden

MSE_255, MSE_UNIT = 0, 1  # columns of the golden tables


@pytest.mark.parametrize("table", ["pairs_full", "pairs_crop", "pairs_camera"])
def test_golden(table, image_pairs, batched):
    values = [float(mse(batched(pred), batched(target))) for target, pred in image_pairs[table]]
    expected = golden.arrays("metrics")[table]
    assert values == pytest.approx(expected[:, MSE_UNIT], abs=1e-12)
    assert [65025 * value for value in values] == pytest.approx(expected[:, MSE_255], abs=1e-8)


@pytest.mark.parametrize("table", ["pairs_crop", "pairs_camera"])
def test_equals_scikit_image(table, image_pairs, batched):
    for target, pred in image_pairs[table]:
        expected = mean_squared_error(target / 255, pred / 255)
        assert float(mse(batched(pred), batched(target))) == pytest.approx(expected, abs=1e-12)


def test_psnr_is_its_logarithm(image_pairs, batched):
    for target, pred in image_pairs["pairs_crop"]:
        images = batched(pred), batched(target)
        assert float(-10 * torch.log10(mse(*images))) == pytest.approx(float(psnr(*images)), abs=1e-10)


def test_uint8_does_not_wrap():
    low, high = torch.full((1, 1, 4, 4), 10, dtype=torch.uint8), torch.full((1, 1, 4, 4), 200, dtype=torch.uint8)
    assert float(mse(low, high)) == float(mse(high, low)) == pytest.approx((190 / 255) ** 2)


def test_grows_with_the_square_of_the_noise():
    random = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, 32, 32, generator=random) * 155 + 50
    step = torch.randn(1, 3, 32, 32, generator=random)
    first, *others = (float(mse(target + step * sigma, target)) for sigma in (1, 2, 4, 8))
    assert [value / first for value in others] == pytest.approx([4, 16, 64], rel=1e-4)


def test_has_a_gradient():
    pred = torch.full((1, 3, 12, 12), 100.0, requires_grad=True)
    mse(pred, torch.full((1, 3, 12, 12), 90.0)).sum().backward()
    assert (pred.grad > 0).all()  # brighter is farther from the target

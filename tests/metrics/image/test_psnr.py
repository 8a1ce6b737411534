# SPDX-License-Identifier: Apache-2.0
"""PSNR against published numbers and scikit-image."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from lipsync_bench.metrics.image.psnr import PSNR, psnr
from tests import golden

COLOUR, GRAY = 2, 8  # columns of the golden tables


@pytest.mark.parametrize("table", ["pairs_full", "pairs_crop", "pairs_camera"])
def test_golden(table, image_pairs, batched):
    values = [float(psnr(batched(pred), batched(target))) for target, pred in image_pairs[table]]
    assert values == pytest.approx(golden.arrays("metrics")[table][:, COLOUR], abs=1e-6)


@pytest.mark.parametrize("table", ["pairs_full", "pairs_crop"])
def test_golden_gray(table, image_pairs, batched, to_gray):
    values = [float(psnr(batched(to_gray(pred)), batched(to_gray(target)))) for target, pred in image_pairs[table]]
    assert values == pytest.approx(golden.arrays("metrics")[table][:, GRAY], abs=1e-6)


@pytest.mark.parametrize("table", ["pairs_crop", "pairs_camera"])
def test_equals_scikit_image(table, image_pairs, batched):
    for target, pred in image_pairs[table]:
        expected = peak_signal_noise_ratio(target, pred, data_range=255)
        assert float(psnr(batched(pred), batched(target))) == pytest.approx(expected, abs=1e-9)


def test_identical_frames_are_counted_and_left_out(image_pairs, batched):
    metric = PSNR()
    for target, pred in image_pairs["sequence"]:
        metric.update(batched(pred), batched(target))
    assert float(metric.compute()) == pytest.approx(golden.arrays("metrics")["sequence"][0], abs=1e-6)
    assert (metric.infinite_frames, metric.frames) == (1, 4)


def test_only_identical_frames_score_infinity():
    metric = PSNR()
    metric.update(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert math.isinf(metric.compute())
    assert metric.infinite_frames == 2


def test_black_against_white_scores_zero():
    black = torch.zeros(1, 3, 4, 4)
    assert psnr(black, black + 255).tolist() == [0.0]


def test_uint8_does_not_wrap():
    low, high = torch.full((1, 1, 4, 4), 10, dtype=torch.uint8), torch.full((1, 1, 4, 4), 200, dtype=torch.uint8)
    assert torch.equal(psnr(low, high), psnr(high, low))
    assert float(psnr(low, high)) == pytest.approx(20 * math.log10(255 / 190))


def test_falls_as_noise_grows():
    random = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, 32, 32, generator=random) * 155 + 50
    step = torch.randn(1, 3, 32, 32, generator=random)
    values = [float(psnr(target + step * sigma, target)) for sigma in (1, 2, 4, 8)]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[1] == pytest.approx(20 * math.log10(2), abs=1e-3)


def test_has_a_gradient():
    pred = torch.full((1, 3, 12, 12), 100.0, requires_grad=True)
    psnr(pred, torch.full((1, 3, 12, 12), 90.0)).sum().backward()
    assert (pred.grad < 0).all()  # brighter is farther from the target

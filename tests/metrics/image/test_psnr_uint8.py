# SPDX-License-Identifier: Apache-2.0
"""PSNR with uint8 overflow, against NumPy's uint8 arithmetic."""

import math

import numpy as np
import pytest
import torch

from lipsync_bench.metrics.image.psnr import psnr
from lipsync_bench.metrics.image.psnr_uint8 import psnr_uint8
from lipsync_bench.metrics.registry import column
from tests import golden

WRAPPED = 10  # column of the golden tables


@pytest.mark.parametrize("table", ["pairs_full", "pairs_crop"])
def test_golden(table, image_pairs, batched):
    values = [float(psnr_uint8(batched(pred), batched(target))) for target, pred in image_pairs[table]]
    assert values == pytest.approx(golden.arrays("metrics")[table][:, WRAPPED], abs=1e-6)


def test_golden_of_gray_images(image_pairs, batched):
    values = [float(psnr_uint8(batched(pred), batched(target))) for target, pred in image_pairs["pairs_camera"]]
    assert values == pytest.approx(golden.arrays("metrics")["pairs_camera"][:, WRAPPED], abs=1e-6)


def test_equals_numpy(image_pairs, batched, to_gray):
    for target, pred in image_pairs["pairs_crop"]:
        x, y = to_gray(pred), to_gray(target)
        expected = 10 * math.log10(255**2 / np.mean((x - y) ** 2))
        assert (x - y).dtype == np.uint8
        assert float(psnr_uint8(batched(pred), batched(target))) == pytest.approx(expected, abs=1e-10)


def test_hardly_changes_where_psnr_does(image_pairs, batched):
    pairs = [(batched(pred), batched(target)) for target, pred in image_pairs["pairs_crop"]]
    wrapped, true = ([float(function(*pair)) for pair in pairs] for function in (psnr_uint8, psnr))
    assert max(true) - min(true) > 11
    assert max(wrapped) - min(wrapped) < 4
    assert min(wrapped) > 29


def test_every_single_difference():
    """One pixel value against another: the square modulo 256, never below 24.1 dB."""
    target = torch.zeros(256, 1, 2, 2, dtype=torch.uint8)
    pred = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1).expand_as(target)
    values = psnr_uint8(pred, target)
    assert torch.equal(values, psnr_uint8(target, pred))
    for difference, value in enumerate(values.tolist()):
        left = difference**2 % 256
        assert value == pytest.approx(10 * math.log10(255**2 / left) if left else 100.0, abs=1e-10)
    low, high = column("psnr_uint8").bounds
    assert low < float(values.min()) == pytest.approx(10 * math.log10(255**2 / 249), abs=1e-10)
    assert float(values.max()) == high
    assert (values == 100).sum() == 16  # multiples of 16 among them, which are no small errors


def test_floats_are_rounded_to_8_bits():
    target = torch.full((1, 1, 4, 4), 100.0)
    assert float(psnr_uint8(target + 15.4, target)) == float(psnr_uint8(target + 15, target))
    assert float(psnr_uint8(target + 0.4, target)) == 100

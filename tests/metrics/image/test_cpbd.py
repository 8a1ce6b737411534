# SPDX-License-Identifier: Apache-2.0
"""CPBD against the output of the package cpbd 1.0.7."""

import math

import numpy as np
import pytest
import skimage
import torch
from scipy.ndimage import gaussian_filter

from lipsync_bench.metrics.image.cpbd import CPBD, cpbd, edge_sharpness
from tests import golden

SCORE, EDGES, BLOCKS = 0, 3, 4  # columns of the golden tables


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.clip(np.rint(gaussian_filter(image.astype(np.float64), sigma)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def images(to_gray) -> dict[str, list[np.ndarray]]:
    """The gray images of each golden table, in the order of its rows. The last one has blocks of low contrast."""
    a, c = to_gray(skimage.data.astronaut()), skimage.data.camera()
    mixed = c.copy()
    mixed[:, :200] = 90
    mixed[:, 300:] = 100 + (c[:, 300:].astype(int) - 100) // 8
    return {
        "cpbd_astronaut": [blurred(a, sigma) if sigma else a for sigma in (0, 1, 2, 4)],
        "cpbd_camera": [blurred(c, sigma) if sigma else c for sigma in (0, 1, 2, 4)],
        "cpbd_crops": [a[50:210, 140:300], a[50:230, 140:300], a[:63], c[7:140, 11:330], mixed],
    }


@pytest.mark.parametrize("table", ["cpbd_astronaut", "cpbd_camera", "cpbd_crops"])
def test_golden(table, images):
    expected = golden.arrays("metrics")[table]
    found = [edge_sharpness(image) for image in images[table]]
    scores = [sharpness.score for sharpness in found]
    assert scores == pytest.approx(expected[:, SCORE], abs=1e-9)
    assert [sharpness.blocks for sharpness in found] == expected[:, BLOCKS].tolist()
    assert [sharpness.edges for sharpness in found] == expected[:, EDGES].tolist()


def test_colour_is_mixed_as_in_the_goldens(batched):
    image = skimage.data.astronaut()
    assert float(cpbd(batched(image))) == pytest.approx(golden.arrays("metrics")["cpbd_astronaut"][0, 0], abs=1e-9)


def step(rise_px: int, rising: bool = True, height: int = 200) -> np.ndarray:
    """(64, 64) from 20 to 20 + height in `pixels` steps that are equal up to rounding."""
    row = 20 + np.clip(np.arange(64) - 30, 0, rise_px) * height // rise_px
    return np.repeat((row if rising else row[::-1])[None], 64, axis=0).astype(np.uint8)


@pytest.mark.parametrize("rising", [True, False])
def test_width_of_a_ramp_decides(rising):
    """One maximum of the gradient, in the middle of the ramp: the width is that of the ramp."""
    for width in (2, 4, 6):
        ramp = step(width, rising)
        middle = 30 + width // 2
        at = middle if rising else 63 - middle
        ramp[:, at] += 1  # the thinning wants a strict maximum
        histogram = edge_sharpness(ramp).histogram
        seen = 1 - math.exp(-((width / 3) ** 3.6))
        assert np.flatnonzero(histogram).tolist() == [round(100 * seen)]
        assert edge_sharpness(ramp).score == (width <= 3)


def test_edges_are_wider_before_they_are_noticed_at_low_contrast():
    for height, sharp in ((50, 1.0), (51, 0.0)):  # width 4: noticed from 3 on at high contrast, from 5 at low
        ramp = step(4, height=height)
        ramp[:, 32] += 1
        ramp[:, 34:] = 20 + height  # the span of the block, to the grey level
        assert edge_sharpness(ramp).score == sharp


def test_thinning_drops_a_perfect_step():
    """Two equal maxima side by side are not strict maxima: the package finds no edge."""
    assert edge_sharpness(step(1)).edges == 0
    assert edge_sharpness(step(2)).edges == 62


def test_horizontal_edges_have_no_width():
    image = step(2)
    assert edge_sharpness(image).edges == 62  # rows but the outermost
    found = edge_sharpness(np.ascontiguousarray(image.T))
    assert found.blocks == 1
    assert found.edges == 0
    assert found.score == 0


@pytest.mark.parametrize("shape", [(63, 200), (200, 63), (1, 1)])
def test_images_without_a_block_score_zero(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = edge_sharpness(image)
    assert (found.score, found.edges, found.blocks) == (0.0, 0, 0)


def test_flat_images_score_zero():
    assert cpbd(torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)).tolist() == [0.0, 0.0]


def test_falls_as_blur_grows(images):
    for table in ("cpbd_astronaut", "cpbd_camera"):
        values = [edge_sharpness(image).score for image in images[table]]
        assert values == sorted(values, reverse=True)
        assert values[0] > 1.7 * values[1]


def test_very_wide_edges_are_cut_at_101_pixels_a_side():
    """One edge in a slope of 241 pixels: without the limit it would exceed the table of probabilities."""
    row = np.concatenate([np.arange(0, 120), [122], np.arange(125, 245)]).astype(np.uint8)
    image = np.repeat(row[None], 64, axis=0)
    found = edge_sharpness(image)
    assert found.edges == 62
    assert np.flatnonzero(found.histogram).tolist() == [100]


def test_wrong_inputs():
    metric = CPBD()
    for images, message in (
        (torch.zeros(2, 64, 64, 3), r"images has shape \(2, 64, 64, 3\). Expected \(B, C, H, W\)"),
        (torch.zeros(1, 3, 64, 64) - 1, r"images has values from -1 to -1. Expected 0..255"),
        (torch.full((1, 3, 64, 64), 0.5), r"images has no value above 0.5, as images in \[0, 1\] do"),
        (torch.zeros(1, 1, 64, 64).int(), r"images has dtype torch.int32"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.update(images)
    assert metric.frames == 0
    with pytest.raises(ValueError, match=r"gray has shape \(64, 64, 3\) and dtype uint8. Expected \(H, W\), uint8"):
        edge_sharpness(np.zeros((64, 64, 3), np.uint8))

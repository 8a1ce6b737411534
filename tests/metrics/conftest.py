# SPDX-License-Identifier: Apache-2.0
"""Images and small networks that the tests of several metrics share.

`A` is scikit-image's astronaut, `C` its camera man. blur(im, s) is a Gaussian on float64, rounded; noise adds -20..20;
shift rolls 3 pixels to the right. `crop` cuts rows 40:200 and columns 140:300, the face, after blurring or shifting.
"""

from collections.abc import Callable

import numpy as np
import pytest
import skimage
import torch
from scipy.ndimage import gaussian_filter

from tests import golden

Pair = tuple[np.ndarray, np.ndarray]


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    axes = (sigma, sigma, 0) if image.ndim == 3 else sigma
    return np.clip(np.rint(gaussian_filter(image.astype(np.float64), axes)), 0, 255).astype(np.uint8)


def crop(image: np.ndarray) -> np.ndarray:
    return image[40:200, 140:300]


def gray(image: np.ndarray) -> np.ndarray:
    """PIL's mode L."""
    r, g, b = image.astype(np.int64).transpose(2, 0, 1)
    return ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16).astype(np.uint8)


@pytest.fixture(scope="session")
def image_pairs() -> dict[str, list[Pair]]:
    """The image pairs (H, W, 3) or (H, W), uint8, of each golden table, in the order of its rows."""
    a, c = skimage.data.astronaut(), skimage.data.camera()
    sums = [int(image.sum()) for image in (a, c, gray(a))]
    assert sums == golden.arrays("metrics")["source_sums"].tolist(), "other images than the goldens were made with"
    step = np.rint(golden.uniform("metrics_noise", a.shape, -20, 20)).astype(np.int64)
    noise = np.clip(a + step, 0, 255).astype(np.uint8)
    shift = np.roll(a, 3, axis=1)
    blur1, blur4 = blur(a, 1), blur(a, 4)
    return {
        "pairs_full": [(a, blur1), (a, blur(a, 2)), (a, noise), (a, shift)],
        "pairs_crop": [(crop(a), crop(other)) for other in (blur1, blur4, noise, shift)],
        "pairs_camera": [(c, blur(c, 1)), (c, blur(c, 4))],
        "sequence": [(crop(a), crop(other)) for other in (blur1, blur4, a, noise)],
    }


@pytest.fixture(scope="session")
def to_gray() -> Callable[[np.ndarray], np.ndarray]:
    return gray


@pytest.fixture(scope="session")
def batched() -> Callable[[np.ndarray], torch.Tensor]:
    """(H, W[, 3]) -> (1, C, H, W)."""

    def convert(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1)))[None]

    return convert

# SPDX-License-Identifier: Apache-2.0
"""The learned distance of benchmarks/feature_distance, whose package is not among those of the suite."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

metric = pytest.importorskip(
    "lipsync_feature_distance.metric", reason="not installed: pip install ./benchmarks/feature_distance"
)


@pytest.fixture
def face() -> Tensor:
    return torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_identical_images_have_no_distance(face: Tensor) -> None:
    assert metric.feature_distance(face, face).tolist() == [0.0]


def test_the_distance_has_no_direction_and_rises_with_blur(face: Tensor) -> None:
    blurred = [gaussian_blur(face, 9, sigma) for sigma in (0.5, 1.0, 2.0)]
    distances = [float(metric.feature_distance(image, face)) for image in blurred]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert distances[0] == pytest.approx(float(metric.feature_distance(face, blurred[0])), rel=1e-5)


def test_every_depth_counts_vectors_of_length_one(face: Tensor) -> None:
    features = metric._features(face)
    assert [tuple(x.shape[-2:]) for x in features] == [(side, side) for side in (32, 16, 8, 4, 2)]
    for x in features:
        assert x.norm(dim=1).flatten().tolist() == pytest.approx([1.0] * x.shape[-1] * x.shape[-2], rel=1e-4)

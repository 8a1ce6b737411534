# SPDX-License-Identifier: Apache-2.0
"""Temporal jitter of the lips: zero without jitter, and known values."""

import math

import numpy as np
import pytest
import torch

from lipsync_bench.metrics.face.jitter import ANCHOR_POINTS, Jitter, jitter


def clip(frames: int, seed: int = 0) -> torch.Tensor:
    """A face that does not move: (T, 68, 2)."""
    random = torch.Generator().manual_seed(seed)
    return (torch.rand(1, 68, 2, generator=random, dtype=torch.float64) * 100).repeat(frames, 1, 1)


def times(frames: int) -> torch.Tensor:
    return torch.arange(frames, dtype=torch.float64).reshape(-1, 1, 1)


def test_zero_for_a_still_and_for_an_evenly_moving_mouth():
    still = clip(9)
    moving = still.clone()
    moving[:, 48:] += times(9) * torch.rand(20, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert jitter(still).tolist() == [0.0] * 7
    assert jitter(moving).numpy() == pytest.approx(np.zeros(7), abs=1e-12)


def test_motion_of_the_whole_face_does_not_count():
    random = torch.Generator().manual_seed(2)
    speaking = clip(9)
    speaking[:, 48:] += torch.randn(9, 20, 2, generator=random, dtype=torch.float64)
    trembling = speaking + 10 * torch.randn(9, 1, 2, generator=random, dtype=torch.float64)
    assert jitter(trembling).numpy() == pytest.approx(jitter(speaking).numpy(), abs=1e-10)
    assert float(jitter(speaking).mean()) > 1


def test_blinks_and_the_jaw_do_not_count():
    still = clip(9)
    blinking = still.clone()
    others = [k for k in range(48) if k not in ANCHOR_POINTS]
    assert len(others) == 35
    blinking[:, others] += torch.randn(9, 35, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert jitter(blinking).tolist() == [0.0] * 7


def test_known_values():
    """A parabola's second difference is constant; an alternating one is four times the amplitude."""
    accelerating, swinging = clip(9), clip(9)
    accelerating[:, 48:, 0] += 0.5 * times(9)[:, :, 0] ** 2 * 3
    swinging[:, 48:, 1] += 2 * (-1.0) ** times(9)[:, :, 0]
    assert jitter(accelerating).numpy() == pytest.approx(np.full(7, 3.0), abs=1e-10)
    assert jitter(swinging).numpy() == pytest.approx(np.full(7, 8.0), abs=1e-10)
    one_point = clip(9)
    one_point[4, 60] += torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert jitter(one_point).numpy() == pytest.approx(np.array([0, 0, 5, 10, 5, 0, 0]) / 20, abs=1e-10)


def test_equals_numpy():
    points = np.random.default_rng(4).uniform(0, 160, (30, 68, 2))
    lips = points[:, 48:] - points[:, ANCHOR_POINTS].mean(axis=1, keepdims=True)
    expected = np.linalg.norm(np.diff(lips, n=2, axis=0), axis=2).mean(axis=1)
    np.testing.assert_allclose(jitter(points), expected, rtol=0, atol=1e-12)


def test_grows_with_the_noise_and_with_the_crop():
    speaking = clip(50)
    speaking[:, 48:, 1] += 4 * torch.sin(times(50) / 4)[:, :, 0]
    noise = torch.randn(50, 68, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    values = [float(jitter(speaking + px * noise).mean()) for px in (0, 0.25, 0.5, 1, 2)]
    assert values == sorted(values)
    assert 0 < values[0] < 0.3 < values[2]
    assert float(jitter(2 * speaking).mean()) == pytest.approx(2 * values[0], rel=1e-12)


def test_overlapping_parts_give_the_values_of_the_whole():
    points = torch.rand(40, 68, 2, generator=torch.Generator().manual_seed(6)) * 160
    whole, parts = Jitter(), Jitter()
    whole.update(points)
    for first in range(0, 38, 10):
        parts.update(points[first : first + 12])
    assert parts.frames == whole.frames == 38
    assert float(parts.compute()) == pytest.approx(float(whole.compute()), abs=1e-12)


def test_frames_without_a_face_are_left_out_and_counted():
    points = clip(9)
    points[4, 48:] += 1
    points[7] = math.nan
    metric = Jitter()
    metric.update(points)
    assert jitter(points).isnan().tolist() == [False] * 5 + [True] * 2  # inner frames 6 and 7; frame 8 is no inner one
    assert (metric.skipped_frames, metric.frames) == (2, 7)
    assert float(metric.compute()) == pytest.approx(4 * math.sqrt(2) / 5, abs=1e-10)


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_short_clips_add_nothing(frames):
    metric = Jitter()
    metric.update(clip(frames))
    assert metric.frames == 0
    assert math.isnan(metric.compute())


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (torch.zeros(4, 20, 2), r"landmarks has shape \(4, 20, 2\). Expected \(T, 68, 2\): the lips, and the nose"),
        (torch.zeros(68, 2), r"landmarks has shape \(68, 2\)"),
        (torch.full((4, 68, 2), math.inf), "landmarks has values from inf to inf. Expected finite pixel coordinates"),
        (torch.zeros(4, 68, 2, dtype=torch.bool), "landmarks has dtype torch.bool. Expected pixel coordinates"),
    ],
)
def test_wrong_landmarks(landmarks, message):
    metric = Jitter()
    with pytest.raises(ValueError, match=message):
        metric.update(landmarks)
    assert metric.frames == 0


def test_has_a_gradient():
    points = clip(5)
    points[2, 48:] += 1
    points.requires_grad_(True)
    jitter(points)[1].backward()
    assert (points.grad[2, 48:] > 0).all()

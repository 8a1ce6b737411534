# SPDX-License-Identifier: Apache-2.0
"""Lip landmark distance against numbers from dlib 20.0."""

import numpy as np
import pytest
import skimage
import torch

from lipsync_bench.datamodules.faces.detectors import detect_landmarks68, landmarks68
from lipsync_bench.metrics.face.lmd import LMD, detect_lip_frames, lmd
from tests import golden

SHIFTS = [(0, 3), (3, 0), (2, 5)]  # rolled down and right, in pixels
RAW, CENTRED, CENTRED_SUM, RAW_WITH_REFERENCE_BOX = range(4)  # columns of the golden table


@pytest.fixture(scope="module")
def expected():
    return golden.arrays("metrics")


@pytest.fixture(scope="module")
def images():
    image = skimage.data.astronaut()
    return [image, *(np.ascontiguousarray(np.roll(image, shift, axis=(0, 1))) for shift in SHIFTS)]


@pytest.fixture(scope="module")
def landmarks(images):
    return detect_lip_frames(images)


def test_golden_detections(images, landmarks, expected):
    for number, name in enumerate(["ref", "0", "1", "2"]):
        box, points = detect_landmarks68(images[number])
        assert np.array(box).tolist() == expected["lmd_boxes"][number].tolist()
        np.testing.assert_array_equal(points, expected[f"lmd_landmarks_{name}"])
        np.testing.assert_array_equal(landmarks[number], points)


def test_golden_distances(landmarks, expected):
    pred, ref = landmarks[1:], np.repeat(landmarks[:1], 3, axis=0)
    np.testing.assert_allclose(lmd(pred, ref, centred=False), expected["lmd"][:, RAW], rtol=0, atol=1e-9)
    centred = lmd(pred, ref, centred=True)
    np.testing.assert_allclose(centred, expected["lmd"][:, CENTRED], rtol=0, atol=1e-9)
    np.testing.assert_allclose(20 * centred, expected["lmd"][:, CENTRED_SUM], rtol=0, atol=1e-8)


def test_golden_with_the_box_of_the_reference(images, landmarks, expected):
    box = expected["lmd_boxes"][0]
    pred = np.stack([landmarks68(image, box) for image in images[1:]])
    values = lmd(pred, np.repeat(landmarks[:1], 3, axis=0), centred=False)
    np.testing.assert_allclose(values, expected["lmd"][:, RAW_WITH_REFERENCE_BOX], rtol=0, atol=1e-9)


def test_frames_without_a_face_are_skipped_and_counted(images):
    blank = np.full_like(images[0], 128)
    pred, ref = detect_lip_frames([images[1], images[0], blank]), detect_lip_frames([images[0], blank, images[0]])
    metric = LMD(centred=False)
    metric.update(pred, ref)
    assert float(metric.compute()) == pytest.approx(2.51992, abs=1e-5)
    assert (metric.skipped_frames, metric.frames) == (2, 3)


def test_no_frames():
    assert detect_lip_frames([]).shape == (0, 68, 2)


def test_lip_points_alone_give_the_same():
    random = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 4, 68, 2, generator=random, dtype=torch.float64)
    assert torch.equal(lmd(a, b, centred=True), lmd(a[:, 48:], b[:, 48:], centred=True))
    assert not torch.equal(lmd(a, b, centred=True), lmd(a[:, :20], b[:, :20], centred=True))


def test_grows_with_the_movement_and_centring_ignores_translation():
    random = torch.Generator().manual_seed(0)
    ref = torch.rand(1, 68, 2, generator=random) * 100
    noise = torch.randn(1, 68, 2, generator=random)
    for centred in (False, True):
        values = [float(lmd(ref + noise * px, ref, centred)) for px in (0, 1, 2, 4)]
        assert values == sorted(values)
        assert values[0] == 0
    values = [float(lmd(ref + px, ref, centred=False)) for px in (1, 2, 4)]
    assert values == pytest.approx([2**0.5, 2 * 2**0.5, 4 * 2**0.5], rel=1e-5)
    assert float(lmd(ref + 4, ref, centred=True)) == pytest.approx(0, abs=1e-5)


def test_protocol_follows_the_centring():
    assert LMD(centred=True).protocol == "lmd_lipformer"
    assert LMD(centred=False).protocol == "lmd_hyperlips"

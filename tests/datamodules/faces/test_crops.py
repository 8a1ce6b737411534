# SPDX-License-Identifier: Apache-2.0
"""Crop rectangles: steady, inside the frame, without a trace of the jaw; and Wav2Lip's smoothing, number for number."""

import dataclasses

import numpy as np
import pytest

from lipsync_bench.datamodules.faces.crop_rules.boxes import MIN_SIDE_PX, smooth_boxes_ahead
from lipsync_bench.datamodules.faces.crops import SMOOTHING_RADIUS, crop_boxes, cut
from lipsync_bench.datamodules.faces.tracking import FaceTrack
from tests import golden

SIZE_HW = (480, 640)


def track(low: np.ndarray, high: np.ndarray, boxes: np.ndarray | None = None) -> FaceTrack:
    """Meshes whose tight boxes are low..high, (T, 2) each."""
    count = len(low)
    weights = np.random.default_rng(0).uniform(0, 1, (478, 2))
    weights[:2] = [[0, 0], [1, 1]]
    mesh = np.zeros((count, 478, 3), np.float32)
    mesh[..., :2] = low[:, None] + weights * (high - low)[:, None]
    boxes = np.concatenate([low, high], axis=1) if boxes is None else boxes
    seen = np.ones(count, bool)
    return FaceTrack(boxes.astype(np.float32), np.zeros((count, 68, 2), np.float32), mesh, seen, "test", "1")


def talking(count: int = 60) -> FaceTrack:
    """A head that drifts to the right, with a jaw that opens by up to 30 px three times a second."""
    frames = np.arange(count)
    low = np.stack([100 + frames * 1.5, 80 + 4 * np.sin(frames / 9)], axis=1)
    jaw = 15 - 15 * np.cos(frames * 2 * np.pi * 3 / 25)
    return track(low, low + np.stack([np.full(count, 120.0), 160 + jaw], axis=1))


def test_mesh_rule_against_the_definition() -> None:
    face = talking()
    boxes = crop_boxes(face, "mesh", SIZE_HW)
    low, high = face.mesh[..., :2].min(1).astype(float), face.mesh[..., :2].max(1).astype(float)
    height = high[:, 1] - low[:, 1]

    def mean(values: np.ndarray, t: int) -> float:
        return float(np.mean([values[min(max(k, 0), len(face) - 1)] for k in range(t - 2, t + 3)]))

    highest = np.array([height[max(0, t - 12) : t + 13].max() for t in range(len(face))])
    for t in range(len(face)):
        top = mean(low[:, 1], t)
        expected = [mean(low[:, 0], t), top, mean(high[:, 0], t), top + mean(highest, t)]
        np.testing.assert_allclose(boxes[t], expected, atol=0.51)  # whole pixels
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, np.rint(boxes))


def test_mesh_rule_hides_the_jaw_and_the_detector_rule_does_not() -> None:
    face = talking(75)
    jaw = face.mesh[..., 1].max(1) - face.mesh[..., 1].min(1)
    steady, raw = crop_boxes(face, "mesh", SIZE_HW), crop_boxes(face, "detector", SIZE_HW)
    assert np.ptp(steady[:, 3] - steady[:, 1]) <= 2
    assert np.corrcoef(raw[:, 3] - raw[:, 1], jaw)[0, 1] > 0.99
    # The face stays inside, except for the smoothing's lag.
    assert np.all(steady[:, 3] >= face.mesh[..., 1].max(1) - 2)


def test_only_the_corners_of_the_mesh_decide() -> None:
    face = talking()
    corners = np.stack([face.mesh.min(axis=1), face.mesh.max(axis=1)], axis=1)  # what dubbing keeps of it
    small = dataclasses.replace(face, mesh=corners)
    np.testing.assert_array_equal(crop_boxes(small, "mesh", SIZE_HW), crop_boxes(face, "mesh", SIZE_HW))


def test_no_box_depends_on_frames_beyond_the_radius() -> None:
    track = talking(70)
    boxes = crop_boxes(track, "mesh", SIZE_HW)
    for t in (0, 5, 20, 40, 55):
        part = slice(max(0, t - SMOOTHING_RADIUS), t + SMOOTHING_RADIUS + 1)
        window = FaceTrack(track.boxes[part], track.landmarks[part], track.mesh[part], track.detected[part], "", "")
        np.testing.assert_array_equal(crop_boxes(window, "mesh", SIZE_HW)[t - part.start], boxes[t])


def test_detector_rule_truncates() -> None:
    face = track(
        np.full((2, 2), 100.0), np.full((2, 2), 200.0), np.array([[10.9, 20.9, 110.9, 120.1], [-3.7, -1, 700, 500]])
    )
    boxes = crop_boxes(face, "detector", SIZE_HW)
    np.testing.assert_array_equal(boxes, [[10, 20, 110, 120], [0, 0, 640, 480]])


@pytest.mark.parametrize("rule", ["mesh", "detector"])
@pytest.mark.parametrize("size_hw", [(480, 640), (20, 17), (9, 700)])
def test_boxes_stay_inside_with_a_least_side(rule: str, size_hw: tuple[int, int]) -> None:
    random = np.random.default_rng(3)
    low = random.uniform(-300, 900, (200, 2))
    face = track(low, low + random.uniform(0, 100, (200, 2)))
    x1, y1, x2, y2 = crop_boxes(face, rule, size_hw).T  # type: ignore[arg-type]
    assert x1.min() >= 0
    assert y1.min() >= 0
    assert x2.max() <= size_hw[1]
    assert y2.max() <= size_hw[0]
    assert (x2 - x1).min() >= min(MIN_SIDE_PX, size_hw[1])
    assert (y2 - y1).min() >= min(MIN_SIDE_PX, size_hw[0])


def test_unknown_rule() -> None:
    with pytest.raises(ValueError, match="--crop"):
        crop_boxes(talking(5), "tight", SIZE_HW)  # type: ignore[arg-type]


def test_cut() -> None:
    frame = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    crop = cut(frame, np.array([2.4, 3.6, 10.4, 12.0], np.float32))
    np.testing.assert_array_equal(crop, frame[4:12, 2:10])
    assert crop.flags["C_CONTIGUOUS"]
    crop[:] = 0
    assert frame[4:12, 2:10].any()
    np.testing.assert_array_equal(cut(frame, np.array([-5, -5, 99, 99])), frame)
    with pytest.raises(ValueError, match="outside the frame"):
        cut(frame, np.array([40, 0, 50, 10]))


def golden_boxes(count: int) -> np.ndarray:
    i, k = np.arange(count)[:, None], np.arange(4)[None]
    return (37 * i * i + 11 * k * i + 5 * k) % 97


def test_wav2lip_smoothing_is_the_official_one() -> None:
    arrays = golden.arrays("wav2lip")
    names = [name for name in arrays if name.startswith("inf_smooth_")]
    assert len(names) == 4
    for name in names:
        boxes = golden_boxes(int(name.rpartition("_")[2]))
        result = smooth_boxes_ahead(boxes)
        assert result is boxes
        np.testing.assert_array_equal(result, arrays[name], err_msg=name)


def test_wav2lip_smoothing_needs_integers() -> None:
    assert smooth_boxes_ahead(np.zeros((0, 4), int)).shape == (0, 4)
    with pytest.raises(ValueError, match="integers"):
        smooth_boxes_ahead(np.zeros((3, 4)))

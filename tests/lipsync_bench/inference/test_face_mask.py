# SPDX-License-Identifier: Apache-2.0
"""Pasting as HyperLips does: what is replaced, what stays, and the two kinds of mask. The released numbers are in
test_hyperlips_pipeline.py.
"""

import cv2
import numpy as np
import pytest

from lipsync_bench.inference.face_mask import REDRAWN_LABELS, paste_contour, paste_parsed

BOX = np.array([40, 30, 241, 301], np.float32)  # 201 x 271
X1, Y1, X2, Y2 = BOX.astype(int)
MIDDLE = (Y1 + 200, X1 + 100)  # at the mouth


def frame(seed: int = 0, size_hw: tuple[int, int] = (400, 300)) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (*size_hw, 3), dtype=np.uint8)


def plain(level: int) -> np.ndarray:
    """A generated face of one grey level."""
    return np.full((3, 128, 128), level / 255, np.float32)


def skin(label: int = 1) -> np.ndarray:
    labels = np.zeros((512, 512), np.uint8)
    cv2.ellipse(labels, (256, 256), (200, 240), 0, 0, 360, (label,), -1)
    return labels


def contour(box: np.ndarray = BOX) -> np.ndarray:
    """A frontal face that fills the box: 19 points along the jaw, 11 below the eyes."""
    x1, y1, x2, y2 = box
    middle, half, ears = (x1 + x2) / 2, (x2 - x1) / 2, y1 + 0.45 * (y2 - y1)
    angle = np.linspace(0, np.pi, 19)
    jaw = np.stack([middle + half * np.cos(angle), ears + (y2 - ears) * np.sin(angle)], axis=1)
    cheeks = np.stack([np.linspace(x1 + 5, x2 - 5, 11), np.full(11, ears - 5)], axis=1)
    return np.concatenate([jaw, cheeks]).astype(np.float32)


def whole_frame(source: np.ndarray, box: np.ndarray, generated: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The published steps one by one over the whole frame, as slow as they are."""
    x1, y1, x2, y2 = box.astype(int)
    h, w = y2 - y1, x2 - x1
    m = np.isin(labels, REDRAWN_LABELS).astype(np.uint8)
    prediction = cv2.resize(generated.transpose(1, 2, 0) * np.float32(255), (512, 512))
    original = cv2.resize(source[y1:y2, x1:x2], (512, 512))
    q = cv2.resize(((1 - m[..., None]) * original + m[..., None] * prediction).astype(np.uint8), (w, h))
    mask = cv2.resize(m, (w, h)) * 255
    mask[: h // 2], mask[:, : int(0.15 * w)], mask[:, int(0.85 * w) :] = 0, 0, 0
    alpha = np.zeros(source.shape[:2], np.uint8)
    alpha[y1:y2, x1:x2] = mask
    alpha = cv2.GaussianBlur(cv2.erode(alpha, np.ones((5, 5))), (75, 75), 0, sigmaY=4)
    share = (alpha / 255)[..., None]
    changed = source.copy()
    changed[y1:y2, x1:x2] = q
    return (source * (1 - share) + changed * share).astype(np.uint8)


@pytest.mark.parametrize(
    "box", [BOX, np.array([0, 0, 300, 400]), np.array([3, 250, 120, 398]), np.array([260, 330, 300, 400])]
)
def test_working_near_the_box_alone_gives_the_same(box: np.ndarray) -> None:
    source, generated = frame(), frame(1)[:128, :128].transpose(2, 0, 1).astype(np.float32) / 255
    before = source.copy()
    np.testing.assert_array_equal(
        paste_parsed(source, box, generated, skin()), whole_frame(source, box, generated, skin())
    )
    np.testing.assert_array_equal(source, before)


@pytest.mark.parametrize("label", range(19))
def test_skin_mouth_and_lips_are_redrawn_and_nothing_else(label: int) -> None:
    out = paste_parsed(frame(), BOX, plain(250), skin(label))
    redrawn = abs(out[MIDDLE].astype(int) - 250).max() <= 1
    assert redrawn == (label in (1, 11, 12, 13))


def test_upper_half_sides_and_surroundings_stay() -> None:
    source = frame()
    out = paste_parsed(source, BOX, plain(250), np.ones((512, 512), np.uint8))
    change = abs(out.astype(int) - source).max(axis=-1)
    assert change[:Y1].max() <= 1  # only what truncation takes
    assert change[: Y1 + 271 // 2 - 8].max() <= 1
    assert change[:, : X1 - 10].max() <= 1
    assert change[:, X2 + 10 :].max() <= 1
    assert change[MIDDLE] > 40
    profile = paste_parsed(np.full_like(source, 100), BOX, plain(200), np.ones((512, 512), np.uint8))[MIDDLE[0], :, 0]
    assert abs(np.diff(profile.astype(int))).max() <= 5  # a soft edge of 11.6 px
    assert profile[X1 + int(0.15 * 201)] == pytest.approx(150, abs=15)  # halfway at the margin, less the erosion


def test_released_blur_is_sharp_downwards_and_the_intended_one_is_not() -> None:
    source = np.full((400, 300, 3), 100, np.uint8)
    labels = np.ones((512, 512), np.uint8)

    def steepest(released: bool) -> int:
        out = paste_parsed(source, BOX, plain(200), labels, released=released)
        return int(abs(np.diff(out[: Y1 + 200, MIDDLE[1], 0].astype(int))).max())

    assert steepest(True) == pytest.approx(100 / (4 * np.sqrt(2 * np.pi)), abs=2)
    assert steepest(False) == pytest.approx(100 / (11.6 * np.sqrt(2 * np.pi)), abs=1)


def test_contour_pastes_the_lower_face() -> None:
    source = frame()
    out = paste_contour(source, BOX, plain(250), contour())
    change = abs(out.astype(int) - source).max(axis=-1)
    assert abs(out[MIDDLE].astype(int) - 250).max() <= 1
    assert change[: Y1 + 271 // 2 - 8].max() <= 1
    assert change[Y2 - 3, X1 + 20] <= 1  # beside the chin, where labels of skin everywhere would be redrawn
    everywhere = paste_parsed(source, BOX, plain(250), np.ones((512, 512), np.uint8))
    mouth = np.s_[Y1 + 170 : Y1 + 210, X1 + 80 : X1 + 120]
    np.testing.assert_array_equal(out[mouth], everywhere[mouth])
    assert np.count_nonzero(out != source) < np.count_nonzero(everywhere != source)


@pytest.mark.parametrize("released", [True, False])
def test_the_same_face_changes_at_most_a_grey_level(released: bool) -> None:
    source = cv2.GaussianBlur(frame(), (31, 31), 8)  # as smooth as what is resized to 512 and back has to be
    generated = source[Y1:Y2, X1:X2].transpose(2, 0, 1).astype(np.float32) / 255
    for out in (
        paste_parsed(source, BOX, generated, skin(), released=released),
        paste_contour(source, BOX, generated, contour(), released=released),
    ):
        assert abs(out.astype(int) - source).max() <= 3  # truncations at 512 px, at the box's size, and of the blend


def test_a_face_without_labels_or_contour_changes_nothing() -> None:
    source = frame()
    np.testing.assert_array_equal(paste_parsed(source, BOX, plain(250), skin(17)), source)
    np.testing.assert_array_equal(paste_contour(source, BOX, plain(250), contour() + 1000), source)


@pytest.mark.parametrize("box", [[-1, 30, 241, 301], [40, 30, 301, 301], [40, 30, 241, 401], [40, 30, 40, 301]])
def test_boxes_outside_the_frame_are_refused(box: list[int]) -> None:
    for paste in (
        lambda b: paste_parsed(frame(), b, plain(0), skin()),
        lambda b: paste_contour(frame(), b, plain(0), contour()),
    ):
        with pytest.raises(ValueError, match=rf"box {box[0]}, .* not lie inside the frame of 300x400 px\. Expected"):
            paste(np.array(box))


def test_other_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels are \(256, 256\)\. Expected \(512, 512\).*parse_face"):
        paste_parsed(frame(), BOX, plain(0), skin()[::2, ::2])
    with pytest.raises(ValueError, match=r"frame is float64 .* Expected uint8 \(H, W, 3\)"):
        paste_parsed(frame() / 255, BOX, plain(0), skin())
    with pytest.raises(ValueError, match=r"generated float32 \(128, 128, 3\)"):
        paste_contour(frame(), BOX, plain(0).transpose(1, 2, 0), contour())

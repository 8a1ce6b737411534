# SPDX-License-Identifier: Apache-2.0
"""Crop rules: cut and paste are inverse, rectangles and squares are the published ones, and they move with the face."""

import dataclasses
import itertools
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from lipsync_bench.datamodules.faces.crop_rules.atvg import ATVGSquare
from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut, BoxRule, DetectorBox, FaceMeshBox
from lipsync_bench.datamodules.faces.crop_rules.ffhq import SOFT_EDGE, FFHQQuad, QuadCut
from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule
from lipsync_bench.datamodules.faces.crops import geometry_of
from lipsync_bench.datamodules.faces.detectors import dlib_rectangle
from lipsync_bench.datamodules.faces.geometry import Geometry
from lipsync_bench.datamodules.faces.tracking import FaceTracker
from lipsync_bench.datamodules.media.video import read_frames
from tests import golden

SIZE_HW = (240, 320)
CLIPS = ("talk1", "talk2", "talk3", "talk4", "talk5")
BOX_RULES: list[BoxRule] = [
    FaceMeshBox(),
    FaceMeshBox((3, 8, -4, 5)),
    DetectorBox("mediapipe"),
    DetectorBox("s3fd", (0, 10, 0, 0), 5),
    DetectorBox("dlib", (-6, -2, 0, 400), 5),
    ATVGSquare(),
]


def points68(count: int = 12, angle: float = 0.2) -> np.ndarray:
    """A face of 68 points in the middle of the frame, which drifts, grows and turns; (T, 68, 2)."""
    random = np.random.default_rng(2)
    face = random.uniform(-40, 40, (68, 2))
    face[36:42] = random.uniform((-25, -20), (-15, -10), (6, 2))
    face[42:48] = random.uniform((15, -20), (25, -10), (6, 2))
    face[48], face[54] = (-13, 24), (13, 25)
    t = np.arange(count)[:, None, None]
    turned = turn(face, angle)[None] * (1 + 0.01 * t) + random.normal(0, 0.5, (count, 68, 2))
    return (turned + (160, 120) + 1.3 * t).astype(np.float32)


def turn(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def geometry(landmarks: np.ndarray | None = None, visible: np.ndarray | None = None) -> Geometry:
    landmarks = points68() if landmarks is None else landmarks
    boxes = np.concatenate([landmarks.min(1), landmarks.max(1)], axis=1).astype(np.float32)
    return Geometry(
        SIZE_HW,
        np.ones(len(landmarks), bool) if visible is None else visible,
        boxes,
        landmarks[:, :30],
        landmarks,
        {"mediapipe": boxes, "s3fd": np.trunc(boxes + np.array([-3, -9, 4, 2])), "dlib": np.trunc(boxes)},
    )


def noise(size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*size_hw, 3), np.uint8)


def slope(size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    """A frame that bilinear interpolation reproduces: colours rise by less than a level a pixel."""
    row, column = np.mgrid[: size_hw[0], : size_hw[1]]
    planes = [20 + 0.3 * row + 0.4 * column, 250 - 0.5 * column, 10 + 0.1 * column + 0.8 * row]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)


@lru_cache(maxsize=5)
def real(clip: Path) -> tuple[list[np.ndarray], Geometry]:
    """The first three frames of a video, with dlib's own rectangles, and the mesh's box as S3FD's."""
    frames = list(itertools.islice(read_frames(clip), 3))
    with FaceTracker("mediapipe") as tracker:
        for frame in frames:
            tracker.add(frame)
        track = tracker.finish()
    found = geometry_of(track, tracker.size_hw)
    dlib = [dlib_rectangle(frame) for frame in frames]
    assert all(box is not None for box in dlib)
    return frames, dataclasses.replace(
        found, boxes={**found.boxes, "dlib": np.stack(dlib), "s3fd": np.trunc(track.boxes)}
    )


def quads(rule: FFHQQuad, of: Geometry) -> list[QuadCut]:
    return [cut for cut in rule.cuts(of) if isinstance(cut, QuadCut)]


# Cut, then paste


@pytest.mark.parametrize("rule", BOX_RULES, ids=lambda rule: rule.text())
def test_a_rectangle_that_is_pasted_unchanged_changes_nothing(rule: CropRule) -> None:
    assert_boxes_are_exact(rule, [noise()] * 12, geometry())


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("rule", BOX_RULES, ids=lambda rule: rule.text())
def test_a_rectangle_of_a_real_clip_that_is_pasted_unchanged_changes_nothing(
    rule: CropRule, clip: str, real_clips: Path
) -> None:
    assert_boxes_are_exact(rule, *real(real_clips / f"{clip}.mp4"))


def assert_boxes_are_exact(rule: CropRule, frames: list[np.ndarray], of: Geometry) -> None:
    for frame, cut in zip(frames, rule.cuts(of), strict=True):
        assert isinstance(cut, BoxCut)
        x1, y1, x2, y2 = cut.box
        before = frame.copy()
        face = cut.face(frame, (y2 - y1, x2 - x1))
        np.testing.assert_array_equal(face, frame[y1:y2, x1:x2])
        np.testing.assert_array_equal(cut.paste(frame, face), frame)
        other = cut.paste(frame, 255 - face)
        np.testing.assert_array_equal(other[y1:y2, x1:x2], 255 - face)
        other[y1:y2, x1:x2] = face
        np.testing.assert_array_equal(other, frame)  # nothing around it
        np.testing.assert_array_equal(frame, before)  # nor the frame itself


def test_an_upright_quad_of_whole_pixels_is_exact() -> None:
    frame = noise()
    cut = QuadCut((160.5, 120.5), (50.0, 0.0))  # pixels 111 to 210 and 71 to 170
    face = cut.face(frame, (100, 100))
    np.testing.assert_array_equal(face, frame[71:171, 111:211])
    np.testing.assert_array_equal(cut.paste(frame, face), frame)


@pytest.mark.parametrize("size_of", [lambda side: side, lambda side: 2 * side, lambda side: 3 * side], ids="123")
def test_a_quad_that_is_pasted_unchanged_changes_a_smooth_frame_by_rounding(size_of) -> None:
    """To whole levels, and to the 1/32 of a pixel that OpenCV warps by: 1 level."""
    frame = slope()
    for cut in quads(FFHQQuad(), geometry(points68(angle=0.3))):
        side = size_of(round(cut.side))
        difference = abs(cut.paste(frame, cut.face(frame, (side, side))).astype(int) - frame)
        assert difference.max() <= 1


@pytest.mark.parametrize("clip", CLIPS)
def test_a_quad_of_a_real_clip_that_is_pasted_unchanged_changes_less_than_a_level(clip: str, real_clips: Path) -> None:
    """At its native resolution. Two bilinear interpolations take the finest detail: 0.2 to 0.9 levels on the mean, and
    more at sharp edges (68 at one pixel).
    """
    frames, of = real(real_clips / f"{clip}.mp4")
    for frame, cut in zip(frames, quads(FFHQQuad(), of), strict=True):
        side = round(cut.side)
        inside, pasted = mask(cut, frame.shape[:2]), cut.paste(frame, cut.face(frame, (side, side)))
        difference = abs(pasted.astype(int) - frame)
        assert difference[inside].mean() < 1
        assert np.percentile(difference[inside], 99) <= 10
        np.testing.assert_array_equal(pasted[~inside], frame[~inside])


def mask(cut: QuadCut, size_hw: tuple[int, ...]) -> np.ndarray:
    """Pixels inside the square, by the signs of its four edges."""
    row, column = np.mgrid[: size_hw[0], : size_hw[1]]
    upper_left, lower_left, lower_right, upper_right = cut.corners
    corners = [upper_left, upper_right, lower_right, lower_left, upper_left]
    sides = [(b[0] - a[0]) * (row - a[1]) - (b[1] - a[1]) * (column - a[0]) > 0 for a, b in itertools.pairwise(corners)]
    return np.all(sides, axis=0)


def test_a_pasted_quad_fades_over_the_outer_tenth_and_changes_nothing_outside() -> None:
    frame, cut = np.zeros((*SIZE_HW, 3), np.uint8), QuadCut((150.0, 110.0), (64.0, 20.0))
    out = cut.paste(frame, np.full((64, 64, 3), 200, np.uint8))
    assert not out[~mask(cut, SIZE_HW)].any()
    x, y = np.array(cut.right), np.array([-cut.right[1], cut.right[0]])

    def at(share: float, edge: np.ndarray) -> int:
        """The level at a share of the side away from the middle of an edge."""
        column, row = np.rint(np.array(cut.centre) + edge * (1 - 2 * share)).astype(int)
        return int(out[row, column, 0])

    for edge in (x, -x, y, -y):
        assert at(0.01, edge) < 20
        assert at(SOFT_EDGE / 2, edge) == pytest.approx(100, abs=15)
        assert at(SOFT_EDGE + 0.01, edge) == 200


def test_a_face_of_any_size_fills_the_same_quad() -> None:
    frame, cut = slope(), QuadCut((160.0, 120.0), (45.0, 12.0))
    small, large = (cut.paste(frame, cut.face(frame, size_hw)) for size_hw in ((40, 30), (400, 512)))
    assert abs(small.astype(int) - large).max() <= 4  # interpolation stops half a pixel of the face before its edge


def test_a_large_quad_does_not_alias() -> None:
    """Stripes one pixel wide become their mean, up to one stripe too many in n; single samples would be 0 or 255."""
    frame = np.zeros((600, 600, 3), np.uint8)
    frame[:, ::2] = 255
    for angle in (0.0, 0.3, 0.8):
        x, y = turn(np.array([250.0, 0.0]), angle)
        for size in (32, 60, 96, 128):
            face = QuadCut((300.0, 300.0), (x * 0.8, y * 0.8)).face(frame, (size, size))
            assert abs(face.astype(float) - 127.5).max() < 127.5 * size / 400 + 3, (angle, size)
    narrow = QuadCut((150.0, 110.0), (20.0, 0.0))
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255  # a face of 512 px in a square of 40
    pasted = narrow.paste(np.full((*SIZE_HW, 3), 128, np.uint8), stripes)
    assert abs(pasted.astype(float) - 128).max() < 25


def test_a_quad_beyond_the_frame_repeats_its_edge() -> None:
    frame = noise((60, 80))
    cut = QuadCut((0.5, 20.5), (20.0, 0.0))  # columns -19 to 20, rows 1 to 40
    face = cut.face(frame, (40, 40))
    np.testing.assert_array_equal(face[:, :20], np.repeat(frame[1:41, :1], 20, axis=1))
    np.testing.assert_array_equal(cut.paste(frame, face), frame)
    away = QuadCut((-200.0, -200.0), (20.0, 5.0))
    np.testing.assert_array_equal(away.paste(frame, away.face(frame, (16, 16))), frame)


# FFHQ's square


def ffhq_corners(points: np.ndarray) -> np.ndarray:
    """FFHQ's formula for one face, with complex numbers: a quarter turn is a multiplication by i."""
    z = points[:, 0].astype(np.float64) + 1j * points[:, 1].astype(np.float64)
    left, right, mouth = z[36:42].mean(), z[42:48].mean(), (z[48] + z[54]) / 2
    between, eyes = right - left, (left + right) / 2
    down = mouth - eyes
    x = between - 1j * down
    x *= max(abs(between) * 2.0, abs(down) * 1.8) / abs(x)
    y, centre = 1j * x, eyes + 0.1 * down
    corners = np.array([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    return np.stack([corners.real, corners.imag], axis=1)


@pytest.mark.parametrize("angle", [0.0, 0.4, -0.7])
@pytest.mark.parametrize("narrow", [1.0, 0.4])  # 1: the eyes decide the size; 0.4, as in profile: the mouth
def test_the_square_is_ffhqs(angle: float, narrow: float) -> None:
    points = points68(3, 0.0)
    centre = np.array([160, 120])
    points = (turn((points - centre) * (narrow, 1), angle) + centre).astype(np.float32)
    for cut, face in zip(quads(FFHQQuad(0), geometry(points)), points, strict=True):
        np.testing.assert_allclose(cut.corners, ffhq_corners(face), atol=1e-9)
        upper_left, lower_left, lower_right, _ = cut.corners
        assert cut.side == pytest.approx(np.linalg.norm(lower_left - upper_left))
        assert np.dot(lower_left - upper_left, lower_right - lower_left) == pytest.approx(0, abs=1e-6)


def test_eyes_of_an_upright_face_lie_where_ffhq_has_them() -> None:
    """Their middle is 0.1 v above the centre of a square of 2 |d| or 1.8 |v| about it; so below 50 % of the height."""
    face = np.full((1, 68, 2), 100.0)
    face[0, 36:42], face[0, 42:48], face[0, 48], face[0, 54] = (80, 90), (120, 90), (85, 130), (115, 130)
    (cut,) = quads(FFHQQuad(), geometry(face.astype(np.float32)))
    assert cut.centre == pytest.approx((100, 94))
    assert cut.right == pytest.approx((80, 0))
    assert (90 - cut.corners[0, 1]) / cut.side == pytest.approx(0.475)
    assert (130 - cut.corners[0, 1]) / cut.side == pytest.approx(0.725)


@pytest.mark.parametrize("smoothing", [0, 5])
def test_the_square_moves_with_the_points(smoothing: int) -> None:
    rule, points = FFHQQuad(smoothing), points68().astype(np.float64)
    before = [cut.corners for cut in quads(rule, geometry(points))]
    for scale, angle, shift in ((1, 0, (7.25, -3.5)), (1.7, 0, (0, 0)), (1, 0.9, (0, 0)), (0.6, -0.4, (30, 11))):
        moved = scale * turn(points, angle) + shift
        for cut, corners in zip(quads(rule, geometry(moved)), before, strict=True):
            np.testing.assert_allclose(cut.corners, scale * turn(corners, angle) + shift, atol=1e-9)


def test_squares_are_smoothed_in_each_run_of_frames_by_itself() -> None:
    points = points68(14)
    visible = np.ones(14, bool)
    visible[[5, 6, 7, 13]] = False
    points[~visible] = 0  # meaningless, and no face
    cuts = FFHQQuad(5).cuts(geometry(points, visible))
    assert [cut is not None for cut in cuts] == visible.tolist()
    for start, stop in ((0, 5), (8, 13)):
        raw = np.stack([ffhq_corners(points[t]) for t in range(start, stop)])
        for t in range(start, stop):
            near = [raw[min(max(k, start), stop - 1) - start] for k in range(t - 2, t + 3)]
            cut = cuts[t]
            assert isinstance(cut, QuadCut)
            np.testing.assert_allclose(cut.corners, np.mean(near, axis=0), atol=1e-9)


def test_ffhq_refuses_what_it_cannot_cut() -> None:
    with pytest.raises(ValueError, match=r"no 68 points.*Expected them.*--recipe\.crop mesh"):
        FFHQQuad().cuts(dataclasses.replace(geometry(), landmarks=None))
    with pytest.raises(ValueError, match=r"frames 0 to 2 are not those of faces.*--recipe\.crop mesh"):
        FFHQQuad().cuts(geometry(np.zeros((3, 68, 2), np.float32)))
    for smoothing in (4, -1):
        with pytest.raises(ValueError, match=r"Expected an odd number of frames, or 0"):
            FFHQQuad(smoothing)


# Rectangles


def found(
    boxes: list[list[float]] | np.ndarray, size_hw: tuple[int, int] = SIZE_HW, visible: np.ndarray | None = None
) -> Geometry:
    """Boxes that every detector found."""
    array = np.array(boxes, np.float32)
    return Geometry(
        size_hw,
        np.ones(len(array), bool) if visible is None else visible,
        array,
        np.zeros((len(array), 30, 2), np.float32),
        boxes=dict.fromkeys(("mediapipe", "dlib", "s3fd"), array),
    )


def rectangles(rule: BoxRule, of: Geometry) -> list[tuple[int, ...] | None]:
    return [cut.box if isinstance(cut, BoxCut) else None for cut in rule.cuts(of)]


def test_published_pads_and_smoothing_give_the_official_boxes() -> None:
    """The boxes of the official inference's golden frames: 10 px below, five frames each with those that follow."""
    raw = np.array([[10 + j, 12 + 2 * j, 70 + 3 * j, 80 + j] for j in range(6)])
    padded = raw + np.array([0, 0, 0, 10])
    expected = [np.trunc(padded[j : j + 5].mean(axis=0)) for j in range(2)]
    for _ in range(4):  # the last five of the boxes as they are at that moment
        boxes = np.concatenate([expected, padded[len(expected) :]])
        expected.append(np.trunc(boxes[-5:].mean(axis=0)))
    rule = DetectorBox("s3fd", (0, 10, 0, 0), 5)
    np.testing.assert_array_equal(rectangles(rule, found(raw, (100, 90))), expected)


def test_smoothing_of_a_run_is_the_official_one() -> None:
    """The golden boxes, moved by whole pixels to where they are rectangles; between them nothing is visible."""
    arrays = {name: array for name, array in golden.arrays("wav2lip").items() if name.startswith("inf_smooth_")}
    assert len(arrays) == 4
    offset = np.array([0, 0, 200, 200])
    runs = []
    for name in arrays:
        i, k = np.arange(int(name.rpartition("_")[2]))[:, None], np.arange(4)[None]
        runs += [(37 * i * i + 11 * k * i + 5 * k) % 97 + offset, np.full((2, 4), -7000)]
    boxes = np.concatenate(runs)
    visible = boxes[:, 0] >= 0
    of = found(boxes + 0.75, (400, 400), visible=visible)  # detectors' boxes are truncated first
    result = rectangles(DetectorBox("s3fd", smoothing=5), of)
    assert [box is not None for box in result] == visible.tolist()
    np.testing.assert_array_equal(
        [box for box in result if box is not None], np.concatenate([array + offset for array in arrays.values()])
    )


def test_pads_come_before_the_border() -> None:
    """A box that exceeds the frame by 30 px and loses 20 ends at the border; cut first, it would end inside."""
    boxes = [[100, 100, 350, 270]]
    for rule in (DetectorBox("s3fd", (5, -20, 0, -20)), DetectorBox("s3fd", (5, -20, 0, -20), 5)):
        assert rectangles(rule, found(boxes)) == [(100, 95, 320, 240)]
    assert rectangles(DetectorBox("s3fd", (0, 0, -10, 0)), found([[-4, 20, 90, 90]])) == [(6, 20, 90, 90)]
    assert rectangles(FaceMeshBox((5, -20, 0, -20)), found(boxes)) == [(100, 95, 320, 240)]


@pytest.mark.parametrize("rule", [FaceMeshBox((0, -60, 0, 0)), DetectorBox("dlib", (0, -60, 0, 0))])
def test_pads_that_leave_nothing_are_refused_where_there_is_a_face(rule: BoxRule) -> None:
    with pytest.raises(ValueError, match=r"pads \[0, -60, 0, 0\] leave boxes below 16 px.*--recipe\.pads"):
        rule.cuts(found([[100, 100, 170, 170]]))
    boxes = [[100, 100, 200, 200]] * 30 + [[0, 0, 0, 0]] * 30
    visible = np.arange(60) < 30
    assert rectangles(rule, found(boxes, visible=visible))[0] == (100, 100, 200, 140)  # meaningless boxes do not count
    assert rectangles(rule, found(boxes, visible=visible))[30:] == [None] * 30


def test_atvgs_square() -> None:
    """int(0.64 h) about x + int(w / 2), y + int(h / 2)."""
    assert rectangles(ATVGSquare(), found([[101, 80, 176, 153], [50.9, 60.9, 150.2, 161.9]])) == [
        (138 - 46, 116 - 46, 138 + 46, 116 + 46),
        (100 - 64, 110 - 64, 100 + 64, 110 + 64),
    ]
    assert rectangles(ATVGSquare(), found([[-10, 140, 90, 240]])) == [(0, 126, 104, 240)]  # cut at the border
    moved = found(np.array([[101, 80, 176, 153]]) + 13)
    assert rectangles(ATVGSquare(), moved) == [(105, 83, 197, 175)]


@pytest.mark.parametrize("rule", [DetectorBox("s3fd"), ATVGSquare()])
def test_a_detector_that_did_not_run_is_named(rule: BoxRule) -> None:
    (need,) = rule.needs
    with pytest.raises(ValueError, match=rf"no boxes of the detector {need.removeprefix('boxes:')}.*bench prepare"):
        rule.cuts(dataclasses.replace(found([[0, 0, 50, 50]]), boxes={}))

# SPDX-License-Identifier: Apache-2.0
"""Shots, tracks and crops against those of the SyncNet evaluation's pipeline."""

from collections.abc import Iterator

import numpy as np
import pytest

from lipsync_bench.metrics.sync.face_tracks import (
    ShotValues,
    crop_face,
    face_paths,
    real_video_tracks,
    shot_cuts,
    shots,
    track_detections,
)
from tests import golden

HEIGHT, WIDTH = 480, 854
FIRST, LAST = 10, 334


@pytest.fixture(scope="module")
def expected():
    return golden.arrays("syncnet_v2")


def triangle(n, p: int):
    """Triangle wave 0..p."""
    return np.abs(n % (2 * p) - p)


def picture(frame: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W, 3) uint8 RGB; the goldens' channel c counts B, G, R."""
    y, x, c = np.ogrid[:height, :width, :3]
    bgr = np.minimum(triangle(2 * x + 3 * y + 60 * c + 5 * frame, 256), 255).astype(np.uint8)
    return np.ascontiguousarray(bgr[..., ::-1])


def boxes_of(frame: int) -> list[tuple[int, int, int, int]]:
    """The detections of one frame: A moves and has two gaps, B is too narrow and ends early, C is too small."""
    x, y = 100 + frame // 2 + int(triangle(frame, 5)), 80 + int(triangle(2 * frame, 9))
    a = (x, y, x + 120 + int(triangle(frame, 7)), y + 150 + int(triangle(3 * frame, 11)))
    here = {"A": None if 40 <= frame < 53 or 180 <= frame < 211 else a}
    here["B"] = (500, 60 + frame % 3, 590, 170) if frame < 90 else None
    here["C"] = (700, 300, 760, 370)
    return [box for name in ("ABC" if frame % 2 else "BAC") if (box := here[name]) is not None]


def tracks_of_the_goldens():
    return track_detections([np.array(boxes_of(f), float) for f in range(FIRST, LAST + 1)], FIRST)


def test_golden_tracks(expected):
    tracks = tracks_of_the_goldens()
    assert len(tracks) == expected["n_tracks"]
    for number, track in enumerate(tracks):
        assert [track.first, track.last] == expected[f"track{number}_frames"].tolist()
        np.testing.assert_allclose(track.boxes[::3], expected[f"track{number}_bbox"], rtol=0, atol=1e-9)
        for name, series in zip("sxy", track.centres(), strict=True):
            np.testing.assert_allclose(series, expected[f"track{number}_{name}"], rtol=0, atol=1e-9)


def test_golden_crops(expected):
    for number, track in enumerate(tracks_of_the_goldens()):
        series = np.stack(track.centres(), axis=1)
        count = len(series)
        crops = [crop_face(picture(track.first + k), *series[k]) for k in (0, count // 2, count - 1)]
        shown = np.stack(crops)[:, ::8, ::8, ::-1].astype(int)
        assert np.abs(shown - expected[f"track{number}_crops"]).max() <= 1
        means = [crop_face(picture(track.first + k), *series[k]).mean() for k in range(0, count, 10)]
        np.testing.assert_allclose(means, expected[f"track{number}_cropmean"][::10], rtol=0, atol=0.05)


def test_golden_shots(expected):
    values = ShotValues()
    for frame in range(40):
        values.add(picture(frame + 51 * (8 <= frame < 20 or frame >= 30)))
    np.testing.assert_allclose(values.values, expected["scene_values"], rtol=0, atol=1e-9)
    assert shot_cuts(values.values) == expected["scene_cuts"].tolist()
    assert shots(values.values) == [range(0, 8), range(8, 30), range(30, 40)]


def test_the_threshold_itself_is_a_cut_and_the_first_cut_may_come_early():
    assert shot_cuts([29.99, 30.0, 31.0]) == [2]
    assert shot_cuts([30.0] * 40) == [1, 16, 31]
    assert shots([]) == [range(0, 1)]


def test_a_frame_of_another_size_is_refused():
    values = ShotValues()
    values.add(np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(ValueError, match="frame 1 is 30 x 20 pixels, unlike the frames before"):
        values.add(np.zeros((20, 30, 3), np.uint8))


def still_face(frames: int, missing: range = range(0)) -> list[np.ndarray]:
    return [np.empty((0, 5)) if f in missing else np.array([[50.0, 40, 160, 145, 0.99]]) for f in range(frames)]


@pytest.mark.parametrize(
    ("detections", "lengths"),
    [
        (still_face(101), [101]),
        (still_face(100), []),  # more than 100 detections are asked for
        (still_face(250, missing=range(110, 134)), [250]),  # 25 frames from one detection to the next
        (still_face(250, missing=range(110, 135)), [110, 115]),
        (still_face(126, missing=range(50, 75)), []),
    ],
)
def test_track_lengths(detections, lengths):
    assert [len(track.boxes) for track in track_detections(detections)] == lengths


def test_small_faces_are_dropped():
    face = np.array([[0.0, 0, 100, 100]])
    assert track_detections([face] * 120) == []
    assert len(track_detections([face * 1.01] * 120)) == 1


def test_crop_is_grey_outside_the_frame():
    crop = crop_face(np.zeros((60, 60, 3), np.uint8), 20.0, 5.0, 5.0)
    assert crop.shape == (224, 224, 3)
    assert (crop[0, 0] == 110).all()
    assert (crop[150, 150] == 0).all()
    with pytest.raises(ValueError, match=r"the face at x 500\.0, y 5\.0 .* lies outside the frame of 60 x 60"):
        crop_face(np.zeros((60, 60, 3), np.uint8), 20.0, 500.0, 5.0)


class _Video:
    """A still face for 110 frames, a cut, 99 frames of the same: the second shot is too short to be tracked."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self) -> Iterator[np.ndarray]:
        self.passes += 1
        for f in range(209):
            yield np.full((200, 240, 3), 20 if f < 110 else 220, np.uint8)


def test_video_is_read_twice_and_cut_into_crops():
    video = _Video()
    tracks, crops = real_video_tracks(video, lambda frame: np.array([[50.0, 40, 160, 145, 0.99]]))
    assert video.passes == 1
    assert [(track.first, track.last) for track in tracks] == [(0, 109)]
    received = list(crops)
    assert video.passes == 2
    assert [index for index, _ in received] == [0] * 110
    assert all(crop.shape == (224, 224, 3) and crop.dtype == np.uint8 for _, crop in received)


def test_no_frame_and_no_face_give_no_track():
    assert face_paths([], lambda frame: np.empty((0, 5))) == []
    tracks, crops = real_video_tracks(_Video(), lambda frame: np.empty((0, 5)))
    assert tracks == []
    assert list(crops) == []

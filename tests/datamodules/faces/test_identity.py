# SPDX-License-Identifier: Apache-2.0
"""One track is one person: people who pass each other, cuts, holes; and heads that are not upright."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from lipsync_bench.datamodules.errors import FaceError
from lipsync_bench.datamodules.faces import matching as face_matching
from lipsync_bench.datamodules.faces.crop_rules.boxes import FaceMeshBox
from lipsync_bench.datamodules.faces.detectors import MediaPipeDetector
from lipsync_bench.datamodules.faces.identity import Identity, Sighting
from lipsync_bench.datamodules.faces.tracking import FaceTrack, FaceTracker
from lipsync_bench.datamodules.media.video import read_frames
from lipsync_bench.inference.find_face import find_face
from tests.datamodules.tracks import track_faces

GREY = 110


def heads(count: int) -> list[np.ndarray]:
    """The photograph's head, which talks and sways."""
    photo = astronaut()[0:256, 96:352]
    ys, xs = np.mgrid[0:256, 0:256].astype(np.float32)
    mouth = np.exp(-(((xs - 128) / 22) ** 2) - ((ys - 150) / 14) ** 2)
    return [
        cv2.remap(
            photo,
            xs - 4 * np.float32(math.sin(k / 5)),
            ys - np.float32(3.5 * (1 + math.sin(0.9 * k))) * mouth,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        for k in range(count)
    ]


def passing(right_to_left_px: float, left_to_right_px: float, count: int = 40) -> list[np.ndarray]:
    """A person who walks to the left is hidden by one who walks to the right, by so many pixels a frame."""
    frames = []
    for k, image in enumerate(heads(count)):
        frame = np.full((256, 640, 3), GREY, np.uint8)
        behind, before = round(440 - right_to_left_px * k), round(left_to_right_px * k)
        other = cv2.resize(image[:, ::-1], (200, 200), interpolation=cv2.INTER_AREA)
        frame[20:220, behind : behind + 200] = (other * [1, 1, 0.6]).astype(np.uint8)
        frame[20:210, before : before + 190] = cv2.resize(image, (190, 190), interpolation=cv2.INTER_AREA)
        frames.append(frame)
    return frames


def middles(track: FaceTrack) -> np.ndarray:
    return (track.boxes[:, 0] + track.boxes[:, 2]) / 2


def test_a_hidden_face_is_not_joined_with_the_one_in_front() -> None:
    to_left = to_right = 9.6
    track = track_faces(passing(to_left, to_right))  # hidden for too long is the one behind, whom it went to before
    steps = np.diff(middles(track)[track.detected]) / np.diff(np.flatnonzero(track.detected))
    assert track.detected.sum() > 30
    assert np.abs(steps - to_right).max() < 8  # it would be 19 where the person changes
    assert abs(float(steps.mean()) - to_right) < 1


@pytest.fixture(scope="module")
def speakers(corpus: Path) -> list[list[np.ndarray]]:
    videos = corpus / "videos" / "main"
    return [list(read_frames(sorted(folder.glob("*.mp4"))[0])) for folder in sorted(videos.iterdir())]


def test_a_cut_to_another_person_at_the_same_place_ends_the_track(speakers: list[list[np.ndarray]]) -> None:
    one, two = speakers
    with pytest.raises(
        FaceError,
        match=r"20 in a row from frame .*; in 20 of these another face, or possibly the same one, is at its position",
    ):
        track_faces(one[:20] + two[20:40])
    track = track_faces(one[:30] + two[30:38])  # few enough to be bridged, but not to be taken for the same
    np.testing.assert_array_equal(np.flatnonzero(~track.detected), range(30, 38))
    np.testing.assert_array_equal(np.flatnonzero(track.covered), range(30, 38))


def test_a_dissolve_to_another_person_is_an_error(
    speakers: list[list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face_matching, "_TWO_PEOPLE", 0.3)  # the corpus' people are relatives
    one, two = speakers
    shares = np.linspace(-0.5, 1.5, 40).clip(0, 1)  # 10 frames of one, 20 of both, 10 of the other
    mixed = [cv2.addWeighted(a, 1 - w, b, w, 0) for a, b, w in zip(one, two, shares, strict=False)]
    with pytest.raises(FaceError, match="turns into another person's"):
        track_faces(mixed)
    assert track_faces(one).detected.all()


def test_after_a_gap_another_person_is_another_track_and_the_same_person_is_not(
    speakers: list[list[np.ndarray]],
) -> None:
    (one, two), hole = speakers, [np.full_like(speakers[0][0], GREY)] * 5
    with pytest.raises(FaceError, match="in a row"):
        track_faces(one[:15] + hole + two[20:40])
    track = track_faces(one[:15] + hole + one[20:40])
    np.testing.assert_array_equal(np.flatnonzero(~track.detected), range(15, 20))
    assert not track.covered.any()


def test_a_cut_to_the_same_person_continues_the_track(speakers: list[list[np.ndarray]]) -> None:
    one = speakers[0]
    height, width = one[0].shape[:2]
    nearer = [cv2.resize(f[height // 12 : -height // 12, width // 12 : -width // 12], (width, height)) for f in one]
    assert track_faces(one[:15] + nearer[25:40]).detected.all()


def test_dubbing_leaves_another_face_alone(speakers: list[list[np.ndarray]]) -> None:
    one, two = speakers
    path = find_face(one[:14] + two[14:20] + one[20:34], FaceMeshBox())
    np.testing.assert_array_equal(np.flatnonzero(~path.visible), range(14, 20))
    path = find_face(one[:20] + two[20:36], FaceMeshBox())
    np.testing.assert_array_equal(path.visible, np.arange(36) < 20)


def test_embeddings_distinguish_people(speakers: list[list[np.ndarray]]) -> None:
    sightings = []
    for frames in speakers:
        with MediaPipeDetector(landmarks=False) as detector:
            sightings.append([Sighting(f, face) for f in frames[:11:10] for face in detector.detect(f)])
    identity = Identity()
    identity.add(sightings[0][0])
    assert identity.distance(sightings[0][1]) < 0.3 < identity.distance(sightings[1][0])
    assert not identity.upside_down


def test_many_faces_of_the_real_clips(real_clips: Path) -> None:
    cuts = {}
    for name in ("talk3.mp4", "talk4.mp4"):
        frames = list(read_frames(real_clips / name))[:60]
        x1, y1, x2, y2 = track_faces(frames[:5]).boxes[0].astype(int)
        pad = (x2 - x1) // 3
        cuts[name] = [cv2.resize(f[y1 - pad : y2 + pad, x1 - pad : x2 + pad], (224, 224)) for f in frames]
    one, two = cuts.values()
    for frames in (one, two):
        assert track_faces(frames).detected.all()
    with pytest.raises(FaceError, match="another face, or possibly the same one, is at its position"):
        track_faces(one[:30] + two[:30])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_heads_that_are_not_upright_are_an_error(turns: int) -> None:
    frames = [np.ascontiguousarray(np.rot90(frame, turns)) for frame in heads(8)]
    with pytest.raises(FaceError, match=r"upside down.*Turn the video with: ffmpeg|no face in any of 8 frames"):
        track_faces(frames)
    with FaceTracker() as tracker:
        for frame in frames:
            tracker.add(frame)
        with pytest.raises(FaceError):
            tracker.finish(bridge_all=True)  # dubbing passes over holes, but not over this


def test_a_tilted_head_is_followed() -> None:
    turn = cv2.getRotationMatrix2D((128, 128), 30, 1)
    assert track_faces([cv2.warpAffine(frame, turn, (256, 256)) for frame in heads(5)]).detected.all()

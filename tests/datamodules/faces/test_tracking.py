# SPDX-License-Identifier: Apache-2.0
"""Face tracks: on a photograph that moves, with several faces, gaps and none at all."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from lipsync_bench.datamodules.errors import FaceError, MediaError
from lipsync_bench.datamodules.faces import detectors
from lipsync_bench.datamodules.faces.crops import crop_boxes
from lipsync_bench.datamodules.faces.detectors import MediaPipeDetector, detect_landmarks68, landmarks68, make_detector
from lipsync_bench.datamodules.faces.tracking import FaceTracker
from tests import golden
from tests.datamodules.tracks import track_faces

STEP_PX = 2
NOSE_TIP = 1  # of the mesh
EYE_LINES = (33, 263)  # outer corners: of the person's right eye, of the left


def moving(count: int, scale: float = 1.0) -> list[np.ndarray]:
    """The photograph's head, moving to the left by 2 px a frame."""
    photo = astronaut()
    frames = [photo[0:280, 60 + STEP_PX * k : 380 + STEP_PX * k] for k in range(count)]
    return [cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for frame in frames]


MIDDLE_PX = 220  # between the two


def two_faces(count: int = 4, seen: str = "both") -> list[np.ndarray]:
    """A large head on the left, one of 0.7 of its size on the right; `left` and `right` show one of them."""
    large = astronaut()[20:240, 120:330]
    small = cv2.resize(large, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    frame = np.full((220, 380, 3), 128, np.uint8)
    if seen != "right":
        frame[:, :210] = large
    if seen != "left":
        frame[20 : 20 + small.shape[0], 230 : 230 + small.shape[1]] = small
    return [frame] * count


def blanked(frames: Sequence[np.ndarray], missing: range) -> list[np.ndarray]:
    return [np.zeros_like(frame) if k in missing else frame for k, frame in enumerate(frames)]


@pytest.fixture(scope="module")
def track() -> Any:
    return track_faces(moving(20))


def test_shapes_and_types(track: Any) -> None:
    assert len(track) == 20
    assert (track.boxes.shape, track.boxes.dtype) == ((20, 4), np.float32)
    assert (track.landmarks.shape, track.landmarks.dtype) == ((20, 68, 2), np.float32)
    assert (track.mesh.shape, track.mesh.dtype) == ((20, 478, 3), np.float32)
    assert track.detected.all()
    assert track.detector == "mediapipe"
    assert track.detector_version == "mediapipe 0.10.21 face_mesh refine"


def test_the_track_follows_the_head(track: Any) -> None:
    # The same head at other places: after taking the motion out, everything stands still but for jitter.
    shift = np.arange(20) * STEP_PX
    assert np.ptp(track.boxes[:, 0] + shift) < 4
    assert np.abs(np.diff(track.mesh[:, NOSE_TIP, 0]).mean() + STEP_PX) < 0.2
    np.testing.assert_allclose(track.boxes[:, :2], track.mesh[..., :2].min(1))
    np.testing.assert_allclose(track.boxes[:, 2:], track.mesh[..., :2].max(1))


def test_mesh_and_landmarks_agree(track: Any) -> None:
    right_eye, left_eye = (track.mesh[:, point, :2] for point in EYE_LINES)
    assert np.linalg.norm(right_eye - track.landmarks[:, 36], axis=1).max() < 6
    assert np.linalg.norm(left_eye - track.landmarks[:, 45], axis=1).max() < 6
    lips = track.mesh[:, [61, 291], :2].mean(1)
    assert np.linalg.norm(lips - track.landmarks[:, 48:].mean(1), axis=1).max() < 8
    # z in the units of x: the nose is nearer than the ears by less than the width of the face.
    depth = track.mesh[:, 234, 2] - track.mesh[:, NOSE_TIP, 2]
    width = track.boxes[:, 2] - track.boxes[:, 0]
    assert np.all((depth > 0.1 * width) & (depth < 1.2 * width))


def test_the_predictor_rectangle_resembles_the_hog_one(track: Any) -> None:
    found = detect_landmarks68(moving(1)[0])
    assert found is not None
    assert (
        np.linalg.norm(found[1] - track.landmarks[0], axis=1).mean() < 3
    )  # of a face of 100 px; see the constants' note


def test_landmarks_are_dlibs_own() -> None:
    arrays = golden.arrays("metrics")
    found = detect_landmarks68(astronaut())
    assert found is not None
    np.testing.assert_array_equal(found[0], arrays["lmd_boxes"][0])
    np.testing.assert_allclose(found[1], arrays["lmd_landmarks_ref"], atol=1)
    np.testing.assert_array_equal(landmarks68(astronaut(), found[0]), found[1])
    assert detect_landmarks68(np.zeros((60, 60, 3), np.uint8)) is None


def test_same_clip_same_arrays_independent_of_earlier_clips(track: Any) -> None:
    again = track_faces(iter(moving(20)))
    for name in ("boxes", "landmarks", "mesh", "detected"):
        np.testing.assert_array_equal(getattr(again, name), getattr(track, name), err_msg=name)


@pytest.mark.parametrize(
    ("face", "left"), [("largest", True), ("left", True), ("right", False), ("centre", True), (0, True), (1, False)]
)
def test_choice_between_two_faces(face: Any, left: bool) -> None:
    result = track_faces(two_faces(), face=face)
    assert (result.mesh[:, NOSE_TIP, 0] < MIDDLE_PX).all() == left
    assert result.detected.all()


def test_largest_counts_the_frames_too() -> None:
    frames = two_faces(3) + two_faces(21, "right")  # the large head is there for 3 of 24 frames only
    assert (track_faces(frames).mesh[:, NOSE_TIP, 0] > MIDDLE_PX).all()
    # So short a track counts as a false detection: left is the leftmost of those that last.
    assert (track_faces(frames, face="left").mesh[:, NOSE_TIP, 0] > MIDDLE_PX).all()


def test_first_is_the_face_found_first() -> None:
    frames = two_faces(4, "right") + two_faces(8)
    assert (track_faces(frames, face="first").mesh[:, NOSE_TIP, 0] > MIDDLE_PX).all()
    assert (track_faces(frames, face="largest").mesh[:, NOSE_TIP, 0] < MIDDLE_PX).all()


def test_a_face_that_is_not_there() -> None:
    with pytest.raises(FaceError, match="face 2 asked for, 2 found"):
        track_faces(two_faces(), face=2)
    with pytest.raises(FaceError, match="no face in any of 3 frames"):
        track_faces([np.full((120, 160, 3), 90, np.uint8)] * 3)
    with pytest.raises(FaceError, match="no face in any of 0 frames"):
        track_faces([])


def test_a_gap_is_bridged_linearly() -> None:
    frames = blanked(moving(20), range(8, 13))
    result = track_faces(frames, max_gap_frames=5)
    np.testing.assert_array_equal(np.flatnonzero(~result.detected), range(8, 13))
    for values in (result.boxes, result.landmarks, result.mesh):
        for k in range(8, 13):
            expected = values[7] + (values[13] - values[7]) * ((k - 7) / 6)
            np.testing.assert_allclose(values[k], expected, atol=1e-3)
    # Six frames of 2 px went by; Face Mesh looks for the head anew, so it may be a little off.
    assert abs(result.boxes[13, 0] - result.boxes[7, 0] + 6 * STEP_PX) < 6


@pytest.mark.parametrize("missing", [range(0, 4), range(16, 20)])
def test_gaps_at_the_ends_are_held(missing: range) -> None:
    result = track_faces(blanked(moving(20), missing), max_gap_frames=4)
    nearest = 4 if 0 in missing else 15
    for k in missing:
        np.testing.assert_array_equal(result.mesh[k], result.mesh[nearest])
    assert (~result.detected).sum() == 4


@pytest.mark.parametrize("missing", [range(0, 4), range(16, 20), range(8, 12)])
def test_a_longer_gap_is_an_error_with_its_position(missing: range) -> None:
    message = f"face missing in 4 of 20 frames, 4 in a row from frame {missing.start} on; expected at most 3"
    with pytest.raises(FaceError, match=message):
        track_faces(blanked(moving(20), missing), max_gap_frames=3)


def test_small_and_grey_frames() -> None:
    small = track_faces(moving(3, scale=0.25))  # 80 x 70 px
    assert small.detected.all()
    large = track_faces(moving(3))
    assert np.abs(small.mesh[..., :2] * 4 - large.mesh[..., :2]).mean() < 4
    grey = [np.repeat(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) for frame in moving(3)]
    assert np.abs(track_faces(grey).mesh[..., :2] - large.mesh[..., :2]).mean() < 3
    with pytest.raises(FaceError, match="no face"):
        track_faces([np.zeros((1, 1, 3), np.uint8)] * 2)


def test_dlib_detector_finds_the_same_face() -> None:
    frames = moving(3)
    ours, theirs = track_faces(frames), track_faces(frames, "dlib")
    assert theirs.detector == "dlib"
    assert theirs.detector_version.startswith("dlib ")
    found = detect_landmarks68(frames[0])
    assert found is not None
    np.testing.assert_array_equal(theirs.boxes[0], found[0])
    np.testing.assert_array_equal(theirs.landmarks[0], found[1])
    assert np.linalg.norm(ours.mesh[..., :2] - theirs.mesh[..., :2], axis=-1).mean() < 3
    with pytest.raises(FaceError, match="no face"):
        track_faces([np.zeros((80, 80, 3), np.uint8)] * 2, "dlib")


@pytest.mark.parametrize("name", ["mediapipe", "dlib"])
def test_without_landmarks_the_face_is_the_same(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = moving(3)
    with make_detector(name) as detector:
        whole = [detector.detect(frame) for frame in frames]
    monkeypatch.setattr(detectors, "_predictor", lambda: pytest.fail("dlib's predictor was asked for"))
    with make_detector(name, landmarks=False) as detector:
        bare = [detector.detect(frame) for frame in frames]
    for (face,), (other,) in zip(whole, bare, strict=True):
        np.testing.assert_array_equal(other.box, face.box)
        np.testing.assert_array_equal(other.mesh, face.mesh)
        assert (face.landmarks.shape, other.landmarks.shape, other.landmarks.dtype) == ((68, 2), (0, 2), np.float32)


def test_the_provisional_track_has_the_final_boxes() -> None:
    frames = moving(20)
    with FaceTracker() as tracker:
        assert tracker.provisional_track(0) is None
        for frame in frames[:16]:
            tracker.add(frame)
        seen = tracker.provisional_track(0)
        for frame in frames[16:]:
            tracker.add(frame)
        final = tracker.finish()
    assert seen is not None
    np.testing.assert_array_equal(seen.mesh, final.mesh[:16])
    size_hw = frames[0].shape[0], frames[0].shape[1]
    np.testing.assert_array_equal(crop_boxes(seen, "mesh", size_hw)[:2], crop_boxes(final, "mesh", size_hw)[:2])


def test_wrong_input() -> None:
    with MediaPipeDetector() as detector, pytest.raises(ValueError, match="expected uint8 RGB"):
        detector.detect(np.zeros((10, 10, 3), np.float32))
    with pytest.raises(ValueError, match="--detector"):
        make_detector("haar")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="--face"):
        track_faces(two_faces(1), face="tallest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="--max-gap-frames"):
        track_faces(two_faces(1), max_gap_frames=-1)
    with pytest.raises(MediaError, match="one size throughout"):
        track_faces([moving(1)[0], moving(1)[0][:-2]])


def test_a_cut_to_another_place_is_not_the_same_face() -> None:
    with pytest.raises(FaceError, match="in a row from frame 5"):
        track_faces(two_faces(5, "left") + two_faces(5, "right"), max_gap_frames=2)

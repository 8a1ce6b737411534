# SPDX-License-Identifier: Apache-2.0
"""The track of one face through a video: which detections belong together, which face is meant, and what is bridged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from datamodules.detectors import (
    MAX_FACES,
    DetectorName,
    DlibDetector,
    Face,
    FaceDetector,
    MediaPipeDetector,
    S3FDDetector,
    area,
    centre,
    detect_landmarks68,
    iou,
    landmarks68,
    make_detector,
)
from datamodules.errors import FaceError, MediaError

FaceChoice = Literal["largest", "first", "left", "right", "centre"] | int
_MIN_IOU = 0.1
_MAX_STEP = 1.0  # distance from the last position, in box sides, at which a face can still be the same
_MAX_GROWTH = 4.0  # ratio of areas at which it cannot
_MIN_SHARE = 0.5  # a track shorter than this share of the longest is taken for a false detection

__all__ = [
    "MAX_FACES",
    "DetectorName",
    "DlibDetector",
    "FaceChoice",
    "FaceDetector",
    "FaceTrack",
    "FaceTracker",
    "MediaPipeDetector",
    "S3FDDetector",
    "detect_landmarks68",
    "landmarks68",
    "make_detector",
    "track_faces",
]


@dataclass(frozen=True)
class FaceTrack:
    """One face through T frames.

    Args:
        boxes: float32 (T, 4), the detector's own boxes x1 y1 x2 y2 in source pixels (`mediapipe`: tight box of the
            mesh; `dlib`: left, top, right, bottom as dlib gives them, the last two inclusive; `s3fd`: whole pixels,
            right and bottom may exceed the frame).
        landmarks: float32 (T, 68, 2), source pixels.
        mesh: float32 (T, 478, 3), source pixels; z in the units of x, smaller is nearer to the camera.
        detected: bool (T,), False where the face was not seen and its place is interpolated or held.
        detector: Name of the detector.
        detector_version: Package version and model.
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    mesh: np.ndarray
    detected: np.ndarray
    detector: str
    detector_version: str

    def __len__(self) -> int:
        return len(self.detected)


class _Track:
    """The frames on which one face was seen."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.faces: list[Face] = []
        self.area = 0.0  # summed over the frames: mean area times length
        self.centre = np.zeros(2)  # summed

    def add(self, frame: int, face: Face) -> None:
        self.frames.append(frame)
        self.faces.append(face)
        self.area += area(face.box)
        self.centre += centre(face.box)

    @property
    def mean_centre(self) -> np.ndarray:
        return self.centre / len(self.frames)


def _likeness(track: _Track, face: Face) -> float:
    """Above 0 if the face can be the next of the track; overlapping faces come before near ones."""
    last = track.faces[-1].box
    sizes = area(last), area(face.box)
    if max(sizes) > _MAX_GROWTH * min(sizes):
        return 0.0
    overlap = iou(last, face.box)
    if overlap >= _MIN_IOU:
        return 1 + overlap
    step = float(np.linalg.norm(centre(last) - centre(face.box))) / max(sizes) ** 0.5
    return max(0.0, 1 - step / _MAX_STEP)


def _choose(tracks: Sequence[_Track], face: FaceChoice, size_hw: tuple[int, int]) -> _Track:
    if face == "largest":
        return max(tracks, key=lambda track: track.area)
    longest = max(len(track.frames) for track in tracks)
    lasting = [track for track in tracks if len(track.frames) >= _MIN_SHARE * longest]
    if face == "first":
        return min(lasting, key=lambda track: (track.frames[0], -track.area))
    ordered = sorted(lasting, key=lambda track: float(track.mean_centre[0]))
    if face == "left":
        return ordered[0]
    if face == "right":
        return ordered[-1]
    if face == "centre":
        middle = np.array(size_hw[::-1]) / 2
        return min(lasting, key=lambda track: float(np.linalg.norm(track.mean_centre - middle)))
    if isinstance(face, int):
        if not 0 <= face < len(ordered):
            raise FaceError(
                f"face {face} asked for, {len(ordered)} seen; expected 0 for the leftmost and so on (--face)"
            )
        return ordered[face]
    raise ValueError(f"face {face!r}, expected largest, first, left, right, centre or a number (--face)")


def _runs(missing: np.ndarray) -> list[tuple[int, int]]:
    """Runs of True as (first, length)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]]).astype(np.int8)))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _fill(values: np.ndarray, seen: np.ndarray, count: int) -> np.ndarray:
    """Values (n, ...) at the frames `seen` -> (count, ...): linear between them, held outside."""
    if len(seen) == count:
        return values
    position = np.interp(np.arange(count), seen, np.arange(len(seen)))
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, len(seen) - 1)
    weight = (position - low).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] + weight * (values[high] - values[low])


class FaceTracker:
    """Takes the frames of a video one by one and returns the track of one face.

    Args:
        detector: `mediapipe`, `dlib` or `s3fd`; or a detector, which is closed at the end.
        face: Which of several: `largest` (mean area times frames), `first` (seen first), `left`, `right`, `centre` (by
            the mean position), or a number counted from the left, starting with 0. All but `largest` pass over tracks
            of less than half the length of the longest.
        max_gap_frames: Missed frames in a row that are bridged: linearly inside, held at both ends.
        detector_weights: Weight file of `s3fd`.
    """

    def __init__(
        self,
        detector: DetectorName | FaceDetector = "mediapipe",
        *,
        face: FaceChoice = "largest",
        max_gap_frames: int = 12,
        detector_weights: Path | None = None,
    ) -> None:
        if max_gap_frames < 0:
            raise ValueError(f"max_gap_frames is {max_gap_frames}, expected 0 or more (--max-gap-frames)")
        self.size_hw = (0, 0)
        self.frames = 0
        self._detector = detector if isinstance(detector, FaceDetector) else make_detector(detector, detector_weights)
        self._face = face
        self._max_gap = max_gap_frames
        self._tracks: list[_Track] = []

    def __enter__(self) -> "FaceTracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._detector.close()

    def add(self, frame: np.ndarray) -> None:
        """The next frame, uint8 RGB (H, W, 3). Raises MediaError if its size differs from the first one's."""
        size_hw = (frame.shape[0], frame.shape[1])
        if self.frames == 0:
            self.size_hw = size_hw
        elif size_hw != self.size_hw:
            raise MediaError(
                f"frame {self.frames} is {size_hw}, the first {self.size_hw}; expected one size throughout"
            )
        faces = self._detector.detect(frame)
        # Tracks that ended long ago come last. They are still continued, so that an error tells the true gap.
        pairs = [
            (self.frames - track.frames[-1] > self._max_gap + 1, -_likeness(track, face), i, k)
            for i, track in enumerate(self._tracks)
            for k, face in enumerate(faces)
        ]
        used_tracks: set[int] = set()
        used_faces: set[int] = set()
        for _, unlikeness, i, k in sorted(pairs):
            if unlikeness < 0 and i not in used_tracks and k not in used_faces:
                self._tracks[i].add(self.frames, faces[k])
                used_tracks.add(i)
                used_faces.add(k)
        for k, face in enumerate(faces):
            if k not in used_faces:
                self._tracks.append(_Track())
                self._tracks[-1].add(self.frames, face)
        self.frames += 1

    def glimpse(self, start: int) -> FaceTrack | None:
        """The face that leads so far, frames `start` to the newest; None if it was not seen on each of them.

        What leads now need not be the final choice, so this is a guess at what `finish` will return for these frames.
        """
        if not self._tracks:
            return None
        try:
            track = _choose(self._tracks, self._face, self.size_hw)
        except FaceError:
            return None  # the face of this number may come yet
        count = self.frames - start
        if len(track.frames) < count or track.frames[-count] != start or track.frames[-1] != self.frames - 1:
            return None
        return self._assemble(track.faces[-count:], np.arange(count), count)

    def finish(self, bridge_all: bool = False) -> FaceTrack:
        """The track over all frames.

        Args:
            bridge_all: Bridge gaps of any length; `detected` tells them.

        Raises:
            FaceError: No face at all, or the chosen one missing on more than `max_gap_frames` in a row.
        """
        if not self._tracks:
            raise FaceError(
                f"no face on any of {self.frames} frames; expected one of an eighth of the longer side or more "
                "(dlib sees smaller ones, if they are frontal: --detector)"
            )
        track = _choose(self._tracks, self._face, self.size_hw)
        seen = np.array(track.frames)
        missing = np.ones(self.frames, bool)
        missing[seen] = False
        long = [(first, length) for first, length in _runs(missing) if length > self._max_gap]
        if long and not bridge_all:
            raise FaceError(
                f"face missing on {int(missing.sum())} of {self.frames} frames, {long[0][1]} in a row from frame "
                f"{long[0][0]} on; expected at most {self._max_gap} in a row (--max-gap-frames, --face)"
            )
        return self._assemble(track.faces, seen, self.frames)

    def _assemble(self, faces: Sequence[Face], seen: np.ndarray, count: int) -> FaceTrack:
        detected = np.zeros(count, bool)
        detected[seen] = True
        boxes, landmarks, mesh = (_fill(np.stack(values), seen, count) for values in zip(*faces, strict=True))
        return FaceTrack(boxes, landmarks, mesh, detected, self._detector.name, self._detector.version)


def track_faces(
    frames: Iterable[np.ndarray],
    detector: DetectorName = "mediapipe",
    *,
    face: FaceChoice = "largest",
    max_gap_frames: int = 12,
    detector_weights: Path | None = None,
) -> FaceTrack:
    """The track of one face through a video; holds one frame at a time. Arguments and errors as in `FaceTracker`.

    Args:
        frames: uint8 RGB (H, W, 3), all of one size.
    """
    with FaceTracker(detector, face=face, max_gap_frames=max_gap_frames, detector_weights=detector_weights) as tracker:
        for frame in frames:
            tracker.add(frame)
        return tracker.finish()

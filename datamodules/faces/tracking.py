# SPDX-License-Identifier: Apache-2.0
"""The track of one face through a video: joins detections, chooses the face, and bridges gaps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from lipsync_bench.datamodules.errors import FaceError, MediaError
from lipsync_bench.datamodules.faces.detectors import Face, FaceDetector, iou, make_detector
from lipsync_bench.datamodules.faces.geometry import runs
from lipsync_bench.datamodules.faces.identity import Sighting
from lipsync_bench.datamodules.faces.matching import Track, assign
from lipsync_bench.datamodules.faces.options import DetectorName, FaceChoice

_MIN_SHARE = 0.5  # a track shorter than this fraction of the longest is taken for a false detection
_MAX_ROLL_DEGREES = 60.0  # people tilt their heads by up to 45
_COVERED_IOU = 0.1
_TURN = "Turn the video with: ffmpeg -i INPUT -vf transpose=1 OUTPUT.mp4 (by half: hflip,vflip)"

__all__ = ["FaceTrack", "FaceTracker", "fill"]


@dataclass(frozen=True)
class FaceTrack:
    """One face through T frames.

    Args:
        boxes: float32 (T, 4), the detector's own boxes x1 y1 x2 y2 in source pixels (`mediapipe`: tight box of the
            mesh; `dlib`: left, top, right, bottom as dlib gives them, the last two inclusive; `s3fd`: whole pixels,
            right and bottom may exceed the frame).
        landmarks: float32 (T, 68, 2), source pixels.
        mesh: float32 (T, 478, 3), source pixels; z in the units of x, smaller is nearer to the camera.
        detected: bool (T,), False where the face was not found and its position is interpolated or held.
        detector: Name of the detector.
        detector_version: Package version and model.
        covered: bool (T,), True where this face was not found, and the detector found another face at its interpolated
            position: somebody passes in front of it, for example.
    """

    boxes: np.ndarray
    landmarks: np.ndarray
    mesh: np.ndarray
    detected: np.ndarray
    detector: str
    detector_version: str
    covered: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __len__(self) -> int:
        return len(self.detected)


def _choose(tracks: Sequence[Track], face: FaceChoice, size_hw: tuple[int, int]) -> Track:
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
                f"face {face} asked for, {len(ordered)} found; expected 0 for the leftmost and so on (--face)"
            )
        return ordered[face]
    raise ValueError(f"face {face!r}, expected largest, first, left, right, centre or a number (--face)")


def fill(values: np.ndarray, seen: np.ndarray, count: int) -> np.ndarray:
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
        face: Which face, if there are several: `largest` (mean area times frames), `first` (found first), `left`,
            `right`, `centre` (by the mean position), or a number counted from the left, starting with 0. All but
            `largest` ignore tracks of less than half the length of the longest.
        max_gap_frames: Most missed frames in a row that are bridged: linearly inside, held at both ends.
        detector_weights: Weight file of `s3fd`.
        keep: Reduces a face to what is stored of it, to save memory.
    """

    def __init__(
        self,
        detector: DetectorName | FaceDetector = "mediapipe",
        *,
        face: FaceChoice = "largest",
        max_gap_frames: int = 12,
        detector_weights: Path | None = None,
        keep: Callable[[Face], Face] = lambda face: face,
    ) -> None:
        if max_gap_frames < 0:
            raise ValueError(f"max_gap_frames is {max_gap_frames}, expected 0 or more (--max-gap-frames)")
        self.size_hw = (0, 0)
        self.frames = 0
        self._detector = detector if isinstance(detector, FaceDetector) else make_detector(detector, detector_weights)
        self._face = face
        self._max_gap = max_gap_frames
        self._keep = keep
        self._tracks: list[Track] = []
        self._frames_not_upright = 0  # that show heads, all of them lying or upside down

    def __enter__(self) -> "FaceTracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._detector.close()

    def add(self, frame: np.ndarray) -> None:
        """Add the next frame, uint8 RGB (H, W, 3). Raises MediaError if its size differs from the first one's."""
        size_hw = (frame.shape[0], frame.shape[1])
        if self.frames == 0:
            self.size_hw = size_hw
        elif size_hw != self.size_hw:
            raise MediaError(
                f"frame {self.frames} is {size_hw}, the first {self.size_hw}; expected one size throughout"
            )
        sightings = [Sighting(frame, face) for face in self._detector.detect(frame)]
        upright = [sighting for sighting in sightings if abs(sighting.roll_degrees) <= _MAX_ROLL_DEGREES]
        self._frames_not_upright += len(sightings) > 0 and not upright
        found = assign(self._tracks, self.frames, upright, self._max_gap)
        for k, sighting in enumerate(upright):
            if k in found:
                found[k].add(self.frames, sighting)
            else:
                self._tracks.append(Track(self.frames, sighting, self._keep))
        self.frames += 1

    def provisional_track(self, start: int) -> FaceTrack | None:
        """What `finish` would return for the frames from `start` to the newest, if the video ended here.

        With several faces the frames that follow may still change which of them is chosen. None if no face can be
        chosen yet, or if the chosen one was not found in each of these frames.
        """
        if not self._tracks:
            return None
        try:
            track = _choose(self._tracks, self._face, self.size_hw)
        except FaceError:
            return None  # a face of this number may still appear
        count = self.frames - start
        if len(track.frames) < count or track.frames[-count] != start or track.frames[-1] != self.frames - 1:
            return None
        return self._assemble(track.faces[-count:], np.arange(count), count)

    def finish(self, bridge_all: bool = False) -> FaceTrack:
        """The track over all frames.

        Args:
            bridge_all: Bridge gaps of any length; `detected` is False in them.

        Raises:
            FaceError: There is no face, or the chosen one is missing in more than `max_gap_frames` in a row.
        """
        not_upright = self._frames_not_upright
        turn = f"; {not_upright} frames show a head lying or upside down: {_TURN}" if not_upright else ""
        if not self._tracks:
            raise FaceError(
                f"no face in any of {self.frames} frames; expected an upright one of an eighth of the longer side or "
                f"more (dlib finds smaller ones, if they are frontal: --detector){turn}"
            )
        track = _choose(self._tracks, self._face, self.size_hw)
        if track.upside_down:
            raise FaceError(f"the head is upside down; expected it upright. {_TURN}")
        if track.becomes_another_person():
            raise FaceError(
                "the face turns into another person's, as in a dissolve of two shots; expected one person throughout. "
                "Cut the video there, or choose another face (--face)"
            )
        seen = np.array(track.frames)
        missing = np.ones(self.frames, bool)
        missing[seen] = False
        result = self._assemble(track.faces, seen, self.frames)
        result = replace(result, covered=self._covered(result.boxes, result.detected))
        long = [(first, stop) for first, stop in runs(missing) if stop - first > self._max_gap]
        if long and not bridge_all:
            first, stop = long[0]
            others = int(result.covered[first:stop].sum())
            instead = f"; in {others} of these another face, or possibly the same one, is at its position"
            raise FaceError(
                f"face missing in {int(missing.sum())} of {self.frames} frames, {stop - first} in a row from frame "
                f"{first} on{instead if others else ''}; expected at most {self._max_gap} in a row "
                f"(--max-gap-frames, --face){turn}"
            )
        return result

    def _assemble(self, faces: Sequence[Face], seen: np.ndarray, count: int) -> FaceTrack:
        detected = np.zeros(count, bool)
        detected[seen] = True
        boxes, landmarks, mesh = (fill(np.stack(values), seen, count) for values in zip(*faces, strict=True))
        return FaceTrack(boxes, landmarks, mesh, detected, self._detector.name, self._detector.version)

    def _covered(self, boxes: np.ndarray, detected: np.ndarray) -> np.ndarray:
        """In which of the frames without this face the face of another track overlaps its interpolated box."""
        covered = np.zeros(len(detected), bool)
        for track in self._tracks:
            for number, face in zip(track.frames, track.faces, strict=True):
                if not detected[number] and iou(boxes[number], face.box) >= _COVERED_IOU:
                    covered[number] = True
        return covered

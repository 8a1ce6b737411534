# SPDX-License-Identifier: Apache-2.0
"""From a real video to the 224 x 224 face tracks that SyncNet scores: shots, detections, tracks, crops.

The rules are those of the SyncNet evaluation's face pipeline with its default arguments (PySceneDetect 0.5.1
`ContentDetector` for the shots). Everything is streamed: the frames are read twice and never held.

Differs: the published pipeline encodes the video with loss three times on the way (MPEG-4, XVID, JPEG); here
the decoded frames go straight to the network, so that scores agree to about two decimals, not three.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.signal import medfilt

__all__ = [
    "ShotFace",
    "ShotValues",
    "crop_face",
    "face_paths",
    "real_video_tracks",
    "shot_cuts",
    "shots",
    "track_detections",
]

CROP_PX = 224
SHOT_THRESHOLD = 30.0
MIN_CUT_DISTANCE_FRAMES = 15
SUBSAMPLING = (
    (3200, 12),
    (2100, 8),
    (1700, 6),
    (1200, 5),
    (900, 4),
    (600, 3),
    (400, 2),
)  # from this width on, every d-th pixel
MIN_SHOT_FRAMES = 100
MIN_DETECTIONS = 101
MIN_FACE_PX = 100.0
MAX_GAP_FRAMES = 25
MIN_OVERLAP = 0.5
MEDIAN_FRAMES = 13
MARGIN = 0.4
PADDING_GREY = 110

Detector = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class ShotFace:
    """One face through one shot.

    Attributes:
        first: number of its first frame in the video.
        boxes: (n, 4) float64, x1 y1 x2 y2 in pixels for each frame, gaps interpolated.
    """

    first: int
    boxes: np.ndarray

    @property
    def last(self) -> int:
        """Number of its last frame, itself included."""
        return self.first + len(self.boxes) - 1

    def centres(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Half size, centre x and centre y of the crop for each frame, in pixels, each (n,), median-filtered.

        The filter pads with zeros, which pulls the first and last six values down; the published pipeline does so.
        """
        x1, y1, x2, y2 = self.boxes.T
        half = np.maximum(y2 - y1, x2 - x1) / 2
        series = (half, (x1 + x2) / 2, (y1 + y2) / 2)
        half, x, y = (medfilt(values, MEDIAN_FRAMES) for values in series)
        return half, x, y


class ShotValues:
    """How much each frame differs from the one before: mean absolute difference of hue, saturation and value (0..255).

    `add` takes the frames (H, W, 3), uint8 RGB, one after the other; `values` has one entry fewer.
    """

    def __init__(self) -> None:
        self.values: list[float] = []
        self._previous: np.ndarray | None = None

    def add(self, frame: np.ndarray) -> None:
        """Compare a frame with the one added before it."""
        step = next((d for width, d in SUBSAMPLING if frame.shape[1] >= width), 1)
        hsv = cv2.cvtColor(np.ascontiguousarray(frame[::step, ::step]), cv2.COLOR_RGB2HSV).astype(np.int32)
        if self._previous is not None:
            if hsv.shape != self._previous.shape:
                raise ValueError(
                    f"frame {len(self.values) + 1} is {frame.shape[1]} x {frame.shape[0]} pixels, unlike the frames "
                    "before. Expected one size throughout. Re-encode the video"
                )
            self.values.append(float(np.mean(np.abs(hsv - self._previous).mean(axis=(0, 1)))))
        self._previous = hsv


def shot_cuts(values: Sequence[float]) -> list[int]:
    """Frames where a new shot starts; `values[i]` is the difference between frames i and i + 1.

    The first cut may come at any frame; every later one at least 15 frames after the last.
    """
    cuts: list[int] = []
    for frame, value in enumerate(values, start=1):
        if value >= SHOT_THRESHOLD and (not cuts or frame - cuts[-1] >= MIN_CUT_DISTANCE_FRAMES):
            cuts.append(frame)
    return cuts


def shots(values: Sequence[float]) -> list[range]:
    """The shots of a video with `len(values) + 1` frames, as ranges of frame numbers."""
    edges = [0, *shot_cuts(values), len(values) + 1]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes, without the +1 of inclusive pixels."""
    width, height = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    inside = max(0.0, float(width)) * max(0.0, float(height))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside
    return inside / float(union)


def _next_track(remaining: list[list[np.ndarray]], first: int) -> list[tuple[int, np.ndarray]]:
    """Take one track out of the remaining detections; empty when there is none."""
    track: list[tuple[int, np.ndarray]] = []
    for frame, boxes in enumerate(remaining, start=first):
        if track and frame - track[-1][0] > MAX_GAP_FRAMES:
            break
        k = 0
        while k < len(boxes):
            if not track or _overlap(boxes[k], track[-1][1]) > MIN_OVERLAP:
                track.append((frame, boxes.pop(k)))
            # After a match the published loop skips the next detection of the same frame, which has moved to k.
            k += 1
    return track


def track_detections(detections: Sequence[np.ndarray], first: int = 0) -> list[ShotFace]:
    """The face tracks of one shot: more than 100 detections and a mean width or height above 100 px.

    Args:
        detections: for each frame of the shot its boxes (n, 4 or more): x1 y1 x2 y2 in pixels, then anything.
        first: number of the shot's first frame in the video.

    Returns:
        The tracks in the order of their first detections; a gap of at most 24 frames is interpolated.
    """
    remaining = [[np.asarray(box[:4], np.float64) for box in boxes] for boxes in detections]
    tracks = []
    while found := _next_track(remaining, first):
        if len(found) < MIN_DETECTIONS:
            continue
        frames = np.array([frame for frame, _ in found])
        corners = np.stack([box for _, box in found])
        every = np.arange(frames[0], frames[-1] + 1)
        boxes = np.stack([np.interp(every, frames, corner) for corner in corners.T], axis=1)
        if max((boxes[:, 2] - boxes[:, 0]).mean(), (boxes[:, 3] - boxes[:, 1]).mean()) > MIN_FACE_PX:
            tracks.append(ShotFace(int(frames[0]), boxes))
    return tracks


def crop_face(frame: np.ndarray, half: float, x: float, y: float) -> np.ndarray:
    """Cut the square around a face out of a frame (H, W, 3) and resize it to 224 x 224.

    Its side is about 2.8 `half`: its top is the top of the box, its bottom lies 0.8 `half` below the box. What lies
    outside the frame is grey (110).
    """
    pad = int(half * (1 + 2 * MARGIN))
    # int() truncates, so the corners must be computed in the coordinates of the padded frame.
    top, bottom = int(y + pad - half), int(y + pad + half * (1 + 2 * MARGIN))
    left, right = int(x + pad - half * (1 + MARGIN)), int(x + pad + half * (1 + MARGIN))
    height, width = frame.shape[:2]
    top, left = max(top, 0) - pad, max(left, 0) - pad
    bottom, right = min(bottom, height + 2 * pad) - pad, min(right, width + 2 * pad) - pad
    if bottom <= top or right <= left:
        raise ValueError(
            f"the face at x {x:.1f}, y {y:.1f} with half size {half:.1f} px lies outside the frame of {width} x "
            f"{height} pixels. Expected it inside. Check the detector's boxes"
        )
    crop = np.full((bottom - top, right - left, 3), PADDING_GREY, np.uint8)
    y1, y2, x1, x2 = max(top, 0), min(bottom, height), max(left, 0), min(right, width)
    if y1 < y2 and x1 < x2:
        crop[y1 - top : y2 - top, x1 - left : x2 - left] = frame[y1:y2, x1:x2]
    return cv2.resize(crop, (CROP_PX, CROP_PX), interpolation=cv2.INTER_LINEAR)


def face_paths(frames: Iterable[np.ndarray], detector: Detector) -> list[ShotFace]:
    """First pass over a video: detect in every frame, find the shots, track inside the shots of at least 100 frames."""
    values = ShotValues()
    detections = []
    for frame in frames:
        values.add(frame)
        detections.append(np.asarray(detector(frame), np.float64).reshape(-1, 5)[:, :4])
    if not detections:
        return []
    return [
        track
        for shot in shots(values.values)
        if len(shot) >= MIN_SHOT_FRAMES
        for track in track_detections(detections[shot.start : shot.stop], shot.start)
    ]


def real_video_tracks(
    frames_factory: Callable[[], Iterable[np.ndarray]], detector: Detector
) -> tuple[list[ShotFace], Iterator[tuple[int, np.ndarray]]]:
    """The face tracks of a video, and their crops in a second pass over its frames.

    Args:
        frames_factory: called twice; gives the frames (H, W, 3), uint8 RGB, at 25 fps.
        detector: (H, W, 3) uint8 RGB -> (n, 5): x1 y1 x2 y2 in pixels, score; `SyncNetS3FD.detect` for published
            numbers.

    Returns:
        The tracks, and an iterator of (index of the track, crop (224, 224, 3) uint8 RGB) in the order of the frames.
    """
    tracks = face_paths(frames_factory(), detector)

    def crops() -> Iterator[tuple[int, np.ndarray]]:
        series = [track.centres() for track in tracks]
        end = max((track.last for track in tracks), default=-1)
        if end < 0:
            return
        for number, frame in enumerate(frames_factory()):
            for index, (track, (half, x, y)) in enumerate(zip(tracks, series, strict=True)):
                if track.first <= number <= track.last:
                    at = number - track.first
                    yield index, crop_face(frame, half[at], x[at], y[at])
            if number >= end:
                return

    return tracks, crops()

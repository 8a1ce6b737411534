# SPDX-License-Identifier: Apache-2.0
"""The crops of the frames that are compared, and their detectors, by the rules of a protocol."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lipsync_bench.datamodules.clips.clip import ClipHeader
from lipsync_bench.datamodules.faces.crop_rules.atvg import atvg_squares
from lipsync_bench.datamodules.faces.crops import cut
from lipsync_bench.datamodules.faces.detectors import FaceCheck, detector_version, dlib_rectangle
from lipsync_bench.datamodules.faces.s3fd import MIN_SIDE_PX, load_s3fd, rectangles
from lipsync_bench.datamodules.media.video import READING
from lipsync_bench.evaluation.task.protocol import Protocol
from lipsync_bench.metrics.face.lmd import detect_lip_frames

LANDMARKS = "dlib 68 points in the mesh's rectangle, 1"  # the number is raised whenever the landmarks can change
CROP_LANDMARKS = "dlib 68 points found in the crop, 1"  # so here

__all__ = ["Regions", "compare_crops", "in_crop"]


def compare_crops(frames: Sequence[np.ndarray], boxes: np.ndarray, size_hw: tuple[int, int] | None) -> list[np.ndarray]:
    """Cut the boxes out of the frames and resize them bilinearly: uint8 (H, W, 3) each.

    Args:
        frames: uint8 RGB (H, W, 3).
        boxes: (N, 4) x1 y1 x2 y2 in pixels, finite.
        size_hw: Height and width of the result; None for whole frames as they are.
    """
    if size_hw is None:
        return list(frames)
    crops = [cut(frame, box) for frame, box in zip(frames, boxes, strict=True)]
    return [cv2.resize(crop, size_hw[::-1], interpolation=cv2.INTER_LINEAR) for crop in crops]


def in_crop(points: np.ndarray, boxes: np.ndarray, size_hw: tuple[int, int] | None) -> np.ndarray:
    """Points (N, K, 2) in pixels of the frames -> pixels of their crops; NaN where the box is NaN."""
    if size_hw is None:
        return points
    return (points - boxes[:, None, :2]) * (
        np.array(size_hw[::-1], np.float32) / (boxes[:, None, 2:] - boxes[:, None, :2])
    )


class Regions:
    """The detectors of a protocol.

    Args:
        protocol: Chooses the boxes.
        detector_weights: `s3fd-619a316812.pth`, for protocols with S3FD's boxes.
        device: Where S3FD runs.

    Raises:
        FileNotFoundError: The protocol needs S3FD and its weights are missing.
        ValueError: A file that holds something else.
    """

    def __init__(self, protocol: Protocol, detector_weights: Path | None = None, device: str = "cpu") -> None:
        self.protocol = protocol
        self.version: str = protocol.boxes
        """The detector of the boxes, with the SHA-256 of its weights, if any."""
        if protocol.boxes == "s3fd":
            self.version = detector_version("s3fd", detector_weights)
            assert detector_weights is not None
            self._s3fd = load_s3fd(detector_weights, device)
        self._check: FaceCheck | None = None

    def key(self, *headers: ClipHeader) -> str:
        """SHA-256 of all settings and versions that find and cut the faces of these clips; the videos are not in it."""
        clips = [[h.detector, h.detector_version, h.crop_rule, h.settings, h.schema] for h in headers]
        own = [READING, self.version, LANDMARKS, detector_version("dlib"), detector_version("mediapipe")]
        if self.protocol.landmarks == "crop":
            own.append(f"{CROP_LANDMARKS} of {self.protocol.size_hw}")
        return hashlib.sha256(json.dumps([clips, own]).encode()).hexdigest()

    def boxes(self, frames: Sequence[np.ndarray], clip_boxes: np.ndarray) -> np.ndarray:
        """The boxes to cut out of these frames: float32 (N, 4), NaN where the detector finds no face.

        Args:
            frames: uint8 RGB (H, W, 3).
            clip_boxes: (N, 4) the prepared clip's boxes for the same frames.
        """
        if self.protocol.boxes == "mesh":
            return clip_boxes
        if self.protocol.boxes == "frame":
            return np.array([[0, 0, frame.shape[1], frame.shape[0]] for frame in frames], np.float32)
        return np.stack([self._detect(frame) for frame in frames])

    def _detect(self, frame: np.ndarray) -> np.ndarray:
        """float32 (4,) inside the frame; NaN where there is no face."""
        height, width = frame.shape[:2]
        box: np.ndarray | None = None
        if self.protocol.boxes in ("dlib", "atvg"):
            box = dlib_rectangle(frame)
            if box is not None and self.protocol.boxes == "atvg":
                box = atvg_squares(box[None])[0].astype(np.float32)
        elif min(height, width) >= MIN_SIDE_PX:
            found = rectangles(self._s3fd, frame[None])[0]
            box = None if found is None else np.array(found, np.float32)
        if box is None:
            return np.full(4, np.nan, np.float32)
        box = np.clip(box, 0, np.array([width, height, width, height], np.float32))
        return box if (box[2:] - box[:2] >= 1).all() else np.full(4, np.nan, np.float32)

    def landmarks(
        self, points: np.ndarray, boxes: np.ndarray, crops: Sequence[np.ndarray], cropped: np.ndarray
    ) -> np.ndarray:
        """dlib's 68 points in pixels of each frame's crop: (N, 68, 2), NaN without a box, or a face in the crop.

        Args:
            points: (N, 68, 2) those found in the frames.
            boxes: (N, 4) from `boxes`.
            crops: The crops of some of the frames.
            cropped: bool (N,), which these are.
        """
        if self.protocol.landmarks == "frame":
            return in_crop(points, boxes, self.protocol.size_hw)
        found = np.full(points.shape, np.nan)
        found[cropped] = detect_lip_frames(crops)
        return found

    def face_found(self, frames: Sequence[np.ndarray], boxes: np.ndarray, rectangles: np.ndarray) -> np.ndarray:
        """In which frames a face is found: bool (N,).

        If the protocol detects boxes in each video, a box is a face; else Face Mesh runs on each frame separately.

        Args:
            frames: uint8 RGB (H, W, 3).
            boxes: (N, 4) from `boxes`.
            rectangles: (N, 4) Face Mesh searches a square around them.
        """
        if self.protocol.own_boxes:
            return np.isfinite(boxes).all(axis=1)
        if self._check is None:
            self._check = FaceCheck()
        return np.array([self._check(frame, r) for frame, r in zip(frames, rectangles, strict=True)])

    def close(self) -> None:
        """Free the detectors."""
        if self._check is not None:
            self._check.close()
            self._check = None

# SPDX-License-Identifier: Apache-2.0
"""The position of one face in each frame of a video, in arrays that are small enough for an hour of video."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.boxes import MIN_SIDE_PX, smooth_boxes_ahead
from lipsync_bench.datamodules.faces.crops import crop_boxes, outline
from lipsync_bench.datamodules.faces.detectors import make_detector
from lipsync_bench.datamodules.faces.geometry import CONTOUR
from lipsync_bench.datamodules.faces.options import FaceOptions
from lipsync_bench.datamodules.faces.tracking import FaceTracker, runs
from lipsync_bench.inference.options import Pads

__all__ = ["FacePath", "find_face"]


@dataclass(frozen=True)
class FacePath:
    """One face through N frames.

    Args:
        boxes: float32 (N, 4), the boxes to cut out: x1 y1 x2 y2, whole pixels inside the frame.
        contours: float32 (N, 30, 2), the mesh points `CONTOUR` in pixels.
        visible: bool (N,), False where there is no face to dub, or another face covers it; box and contour are
            meaningless there.
    """

    boxes: np.ndarray
    contours: np.ndarray
    visible: np.ndarray

    def __len__(self) -> int:
        return len(self.visible)


def _bridged(detected: np.ndarray, max_gap_frames: int) -> np.ndarray:
    """Frames with a face, and short gaps between two of them. Frames before the first and after the last face are not
    bridged: the face may be outside the frame there.
    """
    visible = detected.copy()
    seen = np.flatnonzero(detected)
    for a, b in pairwise(seen):
        if b - a - 1 <= max_gap_frames:
            visible[a:b] = True
    return visible


def _padded(boxes: np.ndarray, pads: Pads, size_hw: tuple[int, int]) -> np.ndarray:
    top, bottom, left, right = pads
    height, width = size_hw
    out = boxes + np.array([-left, -top, right, bottom])
    out[:, [0, 2]] = np.clip(out[:, [0, 2]], 0, width)
    out[:, [1, 3]] = np.clip(out[:, [1, 3]], 0, height)
    side = np.minimum(MIN_SIDE_PX, [width, height])
    if len(out) and (out[:, 2:] - out[:, :2] < side).any():
        raise ValueError(f"pads {list(pads)} leave boxes below {MIN_SIDE_PX} px. Expected less negative ones (--pads)")
    return out


def _smoothed(boxes: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """The published smoothing, applied to each run of frames with a face separately."""
    whole = boxes.astype(np.int64)
    for start, stop in runs(visible):
        smooth_boxes_ahead(whole[start:stop])
    return whole.astype(np.float32)


def find_face(
    frames: Iterable[np.ndarray],
    options: FaceOptions = FaceOptions(),
    detector_weights: Path | None = None,
    *,
    pads: Pads = (0, 0, 0, 0),
    smooth: bool = True,
) -> FacePath:
    """Track one face through a stream of frames; holds one frame, and 1 KB for each earlier one.

    Args:
        frames: uint8 RGB (H, W, 3), all of one size.
        options: The detector, which of several faces is used, and the crop rule.
        detector_weights: Weight file of a detector that has one.
        pads: Pixels added to the boxes above, below, left and right.
        smooth: With rule `detector`: smooth the boxes as the official inference does.

    Raises:
        FaceError: No face on any frame.
        ValueError: Negative pads that leave no box.
    """
    found = make_detector(options.detector, detector_weights, landmarks=False)
    with FaceTracker(found, face=options.face, max_gap_frames=options.max_gap_frames, keep=outline) as tracker:
        for frame in frames:
            tracker.add(frame)
        track = tracker.finish(bridge_all=True)
    visible = _bridged(track.detected, options.max_gap_frames) & ~track.covered
    boxes = _padded(crop_boxes(track, options.crop, tracker.size_hw), pads, tracker.size_hw)
    if options.crop == "detector" and smooth:
        boxes = _smoothed(boxes, visible)
    return FacePath(boxes, track.mesh[:, : len(CONTOUR), :2], visible)

# SPDX-License-Identifier: Apache-2.0
"""The track of one face through the frames of a test."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.faces.options import DetectorName, FaceChoice
from lipsync_bench.datamodules.faces.tracking import FaceTrack, FaceTracker

__all__ = ["track_faces"]


def track_faces(
    frames: Iterable[np.ndarray],
    detector: DetectorName = "mediapipe",
    *,
    face: FaceChoice = "largest",
    max_gap_frames: int = 12,
    detector_weights: Path | None = None,
) -> FaceTrack:
    """Of uint8 RGB frames (H, W, 3), all of one size. Arguments and errors as in `FaceTracker`."""
    with FaceTracker(detector, face=face, max_gap_frames=max_gap_frames, detector_weights=detector_weights) as tracker:
        for frame in frames:
            tracker.add(frame)
        return tracker.finish()

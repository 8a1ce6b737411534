# SPDX-License-Identifier: Apache-2.0
"""Where one face is in each frame of a video, in arrays that are small enough for an hour of video."""

from collections.abc import Iterable
from itertools import pairwise
from typing import get_args

import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule
from lipsync_bench.datamodules.faces.crops import geometry_of, outline
from lipsync_bench.datamodules.faces.detectors import detector_file, make_detector
from lipsync_bench.datamodules.faces.geometry import Geometry
from lipsync_bench.datamodules.faces.options import DetectorName, FollowOptions
from lipsync_bench.datamodules.faces.tracking import FaceTracker
from lipsync_bench.datamodules.weights.store import Store

__all__ = ["detector_of", "find_face"]


def detector_of(rule: CropRule) -> DetectorName:
    """The detector that a crop rule needs; MediaPipe's where it needs none."""
    names: tuple[DetectorName, ...] = get_args(DetectorName)
    return next((name for name in names if f"boxes:{name}" in rule.needs), "mediapipe")


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


def find_face(
    frames: Iterable[np.ndarray],
    rule: CropRule,
    options: FollowOptions = FollowOptions(),
    store: Store | None = None,
    *,
    landmarks: bool = False,
) -> Geometry:
    """Follow one face through a stream of frames; holds one frame, and 1 KB for each earlier one.

    Args:
        frames: uint8 RGB (H, W, 3), all of one size.
        rule: The crop rule that the geometry is for; it decides which detector runs.
        options: Which face is followed.
        store: Where a detector's weights are looked for.
        landmarks: Whether the 68 points are wanted, though the rule needs none.

    Returns:
        Visible are the frames with a face to dub: found, or in a short gap between two, and not covered by another one.

    Raises:
        FaceError: No face on any frame.
        FileNotFoundError: The detector's weights are not here; says which rule does without.
    """
    name = detector_of(rule)
    try:
        weights = detector_file(name, store or Store())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; or cut faces by the Face Mesh: --recipe.crop mesh") from error
    found = make_detector(name, weights, landmarks=landmarks or "landmarks" in rule.needs)
    with FaceTracker(found, face=options.face, max_gap_frames=options.max_gap_frames, keep=outline) as tracker:
        for frame in frames:
            tracker.add(frame)
        track = tracker.finish(bridge_all=True)
    visible = _bridged(track.detected, options.max_gap_frames) & ~track.covered
    return geometry_of(track, tracker.size_hw, visible)

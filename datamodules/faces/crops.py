# SPDX-License-Identifier: Apache-2.0
"""From a face track to the geometry that crop rules read, and the rectangles of a prepared clip."""

import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.boxes import MESH_RADIUS, BoxRule, DetectorBox, FaceMeshBox
from lipsync_bench.datamodules.faces.detectors import Face
from lipsync_bench.datamodules.faces.geometry import CONTOUR, Geometry
from lipsync_bench.datamodules.faces.options import CropRule
from lipsync_bench.datamodules.faces.tracking import FaceTrack

SMOOTHING_RADIUS = MESH_RADIUS
"""Frames on each side that a box of `crop_boxes` can depend on."""

__all__ = ["SMOOTHING_RADIUS", "crop_boxes", "cut", "geometry_of", "outline"]


def outline(face: Face) -> Face:
    """The face with fewer mesh points: `CONTOUR` and the corners of the mesh's bounding box, 1 KB instead of 6."""
    mesh = face.mesh
    return Face(face.box, face.landmarks, np.vstack([mesh[list(CONTOUR)], mesh.min(axis=0), mesh.max(axis=0)]))


def geometry_of(track: FaceTrack, size_hw: tuple[int, int], visible: np.ndarray | None = None) -> Geometry:
    """What crop rules read of a face track.

    Args:
        track: T frames, with whole meshes or those of `outline`.
        size_hw: Height and width of the frames.
        visible: bool (T,); without it the face is visible everywhere.
    """
    x, y = (
        track.mesh[..., 0],
        track.mesh[..., 1],
    )  # one by one: with the two as the inner axis it takes 25 times as long
    return Geometry(
        size_hw,
        np.ones(len(track), bool) if visible is None else visible,
        np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1),
        track.mesh[:, : len(CONTOUR), :2] if track.mesh.shape[1] < max(CONTOUR) else track.mesh[:, list(CONTOUR), :2],
        track.landmarks if track.landmarks.shape[1] else None,
        {track.detector: track.boxes},
    )


def crop_boxes(track: FaceTrack, rule: CropRule, size_hw: tuple[int, int]) -> np.ndarray:
    """Rectangles that a prepared clip is cut by, float32 (T, 4), whole pixels inside the frame, at least 16 px a side.

    Args:
        track: T frames.
        rule: `mesh`: `FaceMeshBox`. `detector`: the detector's rectangle of each frame, truncated to whole pixels (as
            Wav2Lip prepares its data).
        size_hw: Height and width of the frames in pixels.
    """
    rules: dict[str, BoxRule] = {"mesh": FaceMeshBox(), "detector": DetectorBox(track.detector)}  # type: ignore[arg-type]  # a name of ours
    if rule not in rules:
        raise ValueError(f"crop rule {rule!r}, expected 'mesh' or 'detector' (--crop)")
    return rules[rule].boxes(geometry_of(track, size_hw))


def cut(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part of a frame (H, W, C) inside a rectangle, rounded to whole pixels and clipped to the frame; a copy.

    Raises:
        ValueError: The rectangle does not touch the frame.
    """
    x1, y1, x2, y2 = (max(0, int(value)) for value in np.rint(box))
    crop = frame[y1:y2, x1:x2]
    if crop.size == 0:
        raise ValueError(f"box {list(map(float, box))} is outside the frame of {frame.shape[1::-1]} px")
    return np.ascontiguousarray(crop)

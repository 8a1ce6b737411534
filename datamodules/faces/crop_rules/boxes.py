# SPDX-License-Identifier: Apache-2.0
"""Crop rules that cut an upright rectangle.

Rectangles are x1 y1 x2 y2 in pixels, x2 and y2 exclusive, as in `frame[y1:y2, x1:x2]`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule, Cut, Resize
from lipsync_bench.datamodules.faces.geometry import Geometry, runs
from lipsync_bench.datamodules.faces.options import DetectorName
from lipsync_bench.datamodules.recipes.values import Pads

MIN_SIDE_PX = 16
NO_PADS: Pads = (0, 0, 0, 0)
MESH_RADIUS = 14  # frames on each side that a box of `FaceMeshBox` depends on: 12 for the maximum and 2 for the mean
_MEAN_WINDOW = 5
_MAXIMUM_RADIUS = 12  # half a second: longer than a syllable, so that the mouth is open at least once
_INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}

__all__ = [
    "MESH_RADIUS",
    "MIN_SIDE_PX",
    "NO_PADS",
    "BoxCut",
    "BoxRule",
    "DetectorBox",
    "FaceMeshBox",
    "as_box",
    "in_frame",
    "neighbours",
    "smooth_boxes_ahead",
]


@dataclass(frozen=True)
class BoxCut(Cut):
    """A rectangle of a frame.

    Args:
        box: x1, y1, x2, y2, whole pixels inside the frame.
    """

    box: tuple[int, int, int, int]

    def crop(self, frame: np.ndarray) -> np.ndarray:
        """The part of a frame inside the rectangle, as it is."""
        x1, y1, x2, y2 = self.box
        return frame[y1:y2, x1:x2]

    def face(self, frame: np.ndarray, size_hw: tuple[int, int], resize: Resize = "bilinear") -> np.ndarray:
        return cv2.resize(self.crop(frame), size_hw[::-1], interpolation=_INTERPOLATION[resize])

    def paste(self, frame: np.ndarray, face: np.ndarray) -> np.ndarray:
        x1, y1, x2, y2 = self.box
        out = frame.copy()
        out[y1:y2, x1:x2] = cv2.resize(face, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
        return out

    def points(self, points: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
        """Points of the frame (..., 2) in pixels of the face at this size."""
        x1, y1, x2, y2 = self.box
        height, width = size_hw
        return np.asarray((points - (x1, y1)) * (width / (x2 - x1), height / (y2 - y1)))


def as_box(cut: Cut, user: str) -> BoxCut:
    """The cut, which is a rectangle.

    Args:
        cut: Of any crop rule.
        user: What needs a rectangle, for the error.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(cut, BoxCut):
        raise ValueError(f"{user} with a {type(cut).__name__}. Expected a crop rule of boxes, or --recipe.paste quad")
    return cut


class BoxRule(CropRule):
    """Base of the rules that cut rectangles."""

    @abstractmethod
    def boxes(self, geometry: Geometry) -> np.ndarray:
        """float32 (T, 4), whole pixels inside the frame; meaningless where no face is visible."""

    def cuts(self, geometry: Geometry) -> Sequence[Cut | None]:
        boxes = self.boxes(geometry).astype(int)
        return [
            BoxCut((x1, y1, x2, y2)) if visible else None
            for (x1, y1, x2, y2), visible in zip(boxes.tolist(), geometry.visible, strict=True)
        ]


@dataclass(frozen=True)
class FaceMeshBox(BoxRule):
    """The suite's own rule: steady, and independent of the jaw's position.

    Otherwise a network that fills in the lower half of the crop could infer from the crop's height how far the mouth
    was open. Left, top and right edge are centred means over 5 frames, and the height is the maximum over the 12 frames
    before and after, averaged likewise.

    Args:
        pads: Pixels added above, below, left and right.
    """

    name = "mesh"
    pads: Pads = NO_PADS

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    def text(self) -> str:
        return f"mesh{_pads_text(self.pads)}"

    def boxes(self, geometry: Geometry) -> np.ndarray:
        stored = geometry.mesh_crops
        boxes = _mesh_boxes(geometry.mesh_boxes) if stored is None else stored.astype(np.float64)
        return in_frame(boxes, self.pads, geometry)


@dataclass(frozen=True)
class DetectorBox(BoxRule):
    """A detector's own rectangles, as Wav2Lip, HyperLips and VideoReTalking cut faces.

    Rectangles are truncated to whole pixels, then the pads are added, then they are cut at the frame's border, then
    each is smoothed with those that follow; every run of frames with a face by itself.

    Args:
        detector: Whose.
        pads: Pixels added above, below, left and right.
        smoothing: Frames of the mean that smooths them; 0 for none. Published: 5 at inference, none in training data.

    Reference: Prajwal et al., "A Lip Sync Expert Is All You Need for Speech to Lip Generation In the Wild", 2020, and
    facts of the released inference script.

    Differs: rectangles of fewer than 16 pixels a side are widened.
    """

    name = "detector"
    detector: DetectorName = "s3fd"
    pads: Pads = NO_PADS
    smoothing: int = 0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset([f"boxes:{self.detector}"])

    def text(self) -> str:
        return f"{self.detector}{_pads_text(self.pads)}{f'~{self.smoothing}' if self.smoothing else ''}"

    def boxes(self, geometry: Geometry) -> np.ndarray:
        raw = np.trunc(geometry.boxes_of(self.detector).astype(np.float64))
        boxes = in_frame(raw, self.pads, geometry)
        if not self.smoothing:
            return boxes
        whole = boxes.astype(np.int64)
        for start, stop in runs(geometry.visible):
            smooth_boxes_ahead(whole[start:stop], self.smoothing)
        return whole.astype(np.float32)


def _pads_text(pads: Pads) -> str:
    return f"+{','.join(map(str, pads))}" if any(pads) else ""


def neighbours(values: np.ndarray, radius: int) -> np.ndarray:
    """(T, ...) -> (T, ..., 2 radius + 1): the neighbours of every frame; the first and last frame are repeated."""
    padding = [(radius, radius)] + [(0, 0)] * (values.ndim - 1)
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, padding, mode="edge"), 2 * radius + 1, axis=0)


def _mesh_boxes(tight: np.ndarray) -> np.ndarray:
    left, top, right, bottom = tight.astype(np.float64).T
    height = neighbours(bottom - top, _MAXIMUM_RADIUS).max(axis=-1)
    edges = np.stack([left, top, right, height], axis=1)
    edges = neighbours(edges, _MEAN_WINDOW // 2).mean(axis=-1)
    edges[:, 3] += edges[:, 1]
    return np.rint(edges)


def _inside(low: np.ndarray, high: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Clip intervals to 0..limit and widen short ones around their middle to the minimum, inside the frame."""
    low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
    side = min(MIN_SIDE_PX, limit)
    narrow = high - low < side
    start = np.clip(np.floor((low + high - side) / 2), 0, limit - side)
    return np.where(narrow, start, low), np.where(narrow, start + side, high)


def in_frame(boxes: np.ndarray, pads: Pads, geometry: Geometry) -> np.ndarray:
    """Boxes float64 (T, 4) with their pads, cut at the frame's border: float32 (T, 4).

    Raises:
        ValueError: Negative pads that leave less than 16 pixels of a box.
    """
    top, bottom, left, right = pads
    height, width = geometry.size_hw
    padded = boxes + np.array([-left, -top, right, bottom])
    if min(pads) < 0 and (padded[:, 2:] - padded[:, :2] < MIN_SIDE_PX)[geometry.visible].any():
        raise ValueError(
            f"pads {list(pads)} leave boxes below {MIN_SIDE_PX} px. Expected less negative ones (--recipe.pads)"
        )
    x1, x2 = _inside(padded[:, 0], padded[:, 2], width)
    y1, y2 = _inside(padded[:, 1], padded[:, 3], height)
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.float32)


def smooth_boxes_ahead(boxes: np.ndarray, window: int = _MEAN_WINDOW) -> np.ndarray:
    """Each box becomes a mean of those that follow, in place, as at Wav2Lip's inference; returns the same array.

    Box i becomes the mean of boxes i .. i + 4, truncated to integers. The last four become the mean of the last five
    boxes, some of which are already smoothed. With n < 5 boxes the official slice start, n - 5, is negative and counts
    from the end: it takes the last min(n, 5 - n) boxes.

    Args:
        boxes: Integer array (n, 4).
        window: Frames of the mean, 5 as published.
    """
    if not np.issubdtype(boxes.dtype, np.integer) or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes are {boxes.dtype} {boxes.shape}, expected integers (n, 4)")
    count = len(boxes)
    for index in range(count):
        if index + window <= count:
            part = boxes[index : index + window]
        else:
            part = boxes[-(window if count >= window else min(count, window - count)) :]
        boxes[index] = np.trunc(part.mean(axis=0)).astype(boxes.dtype)
    return boxes

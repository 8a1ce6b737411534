# SPDX-License-Identifier: Apache-2.0
"""From a face track to the rectangles that are cut out of the frames.

There are two rules. `mesh` (ours) is steady and does not depend on the jaw's position: otherwise a network that fills
in the lower half of the crop could infer from the crop's height how far the mouth was open. `detector` is the published
rule: the raw rectangle of every frame, without margin and smoothing.

Rectangles are x1 y1 x2 y2 in pixels, x2 and y2 exclusive, as in `frame[y1:y2, x1:x2]`.
"""

import numpy as np

from lipsync_bench.datamodules.faces.options import CropRule
from lipsync_bench.datamodules.faces.tracking import FaceTrack

SMOOTHING_RADIUS = 14  # frames on each side that a box depends on: 12 for the maximum and 2 for the mean
MIN_SIDE_PX = 16
_MEAN_WINDOW = 5
_MAXIMUM_RADIUS = 12  # half a second: longer than a syllable, so that the mouth is open at least once

__all__ = ["MIN_SIDE_PX", "SMOOTHING_RADIUS", "crop_boxes", "cut", "smooth_boxes_ahead"]


def _windows(values: np.ndarray, radius: int) -> np.ndarray:
    """(T, ...) -> (T, ..., 2 radius + 1): the neighbours of every frame; the first and last frame are repeated."""
    padding = [(radius, radius)] + [(0, 0)] * (values.ndim - 1)
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, padding, mode="edge"), 2 * radius + 1, axis=0)


def _mesh_boxes(mesh: np.ndarray) -> np.ndarray:
    # One coordinate at a time: with the two as the inner axis, NumPy takes 25 times as long.
    x, y = mesh[..., 0], mesh[..., 1]
    left, right, top, bottom = (edge.astype(np.float64) for edge in (x.min(1), x.max(1), y.min(1), y.max(1)))
    height = _windows(bottom - top, _MAXIMUM_RADIUS).max(axis=-1)
    edges = np.stack([left, top, right, height], axis=1)
    edges = _windows(edges, _MEAN_WINDOW // 2).mean(axis=-1)
    edges[:, 3] += edges[:, 1]
    return np.rint(edges)


def _inside(low: np.ndarray, high: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Clip intervals to 0..limit and widen short ones around their middle to the minimum, inside the frame."""
    low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
    side = min(MIN_SIDE_PX, limit)
    narrow = high - low < side
    start = np.clip(np.floor((low + high - side) / 2), 0, limit - side)
    return np.where(narrow, start, low), np.where(narrow, start + side, high)


def crop_boxes(track: FaceTrack, rule: CropRule, size_hw: tuple[int, int]) -> np.ndarray:
    """Crop rectangles of a track, float32 (T, 4), whole pixels inside the frame, at least 16 px a side.

    Args:
        track: T frames.
        rule: `mesh`: tight box of the mesh; left, top and right edge are centred 5-frame means, and the height is the
            maximum over the 12 frames before and after, averaged likewise. `detector`: the detector's rectangle of each
            frame, truncated to whole pixels (as Wav2Lip prepares its data).
        size_hw: Height and width of the frames in pixels.
    """
    height, width = size_hw
    if rule == "mesh":
        boxes = _mesh_boxes(track.mesh)
    elif rule == "detector":
        boxes = np.trunc(track.boxes.astype(np.float64))
    else:
        raise ValueError(f"crop rule {rule!r}, expected 'mesh' or 'detector' (--crop)")
    x1, x2 = _inside(boxes[:, 0], boxes[:, 2], width)
    y1, y2 = _inside(boxes[:, 1], boxes[:, 3], height)
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.float32)


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


def smooth_boxes_ahead(boxes: np.ndarray) -> np.ndarray:
    """Each box becomes a mean of those that follow, in place, as at Wav2Lip's inference; returns the same array.

    Box i becomes the mean of boxes i .. i + 4, truncated to integers. The last four become the mean of the last five
    boxes, some of which are already smoothed. With n < 5 boxes the official slice start, n - 5, is negative and counts
    from the end: it takes the last min(n, 5 - n) boxes.

    Args:
        boxes: Integer array (n, 4).
    """
    if not np.issubdtype(boxes.dtype, np.integer) or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes are {boxes.dtype} {boxes.shape}, expected integers (n, 4)")
    count = len(boxes)
    for index in range(count):
        if index + _MEAN_WINDOW <= count:
            window = boxes[index : index + _MEAN_WINDOW]
        else:
            window = boxes[-(_MEAN_WINDOW if count >= _MEAN_WINDOW else min(count, _MEAN_WINDOW - count)) :]
        boxes[index] = np.trunc(window.mean(axis=0)).astype(boxes.dtype)
    return boxes

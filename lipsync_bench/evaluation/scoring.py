# SPDX-License-Identifier: Apache-2.0
"""From the frames of one clip to the numbers of one row, while the frames stream by."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from datamodules.crops import cut
from datamodules.detectors import hog_like_rectangle, landmarks68
from lipsync_bench.evaluation.protocol import Protocol
from metrics.lmd import lmd
from metrics.psnr import psnr
from metrics.ssim import ssim

LIPS = slice(48, 68)  # of the 68 landmarks
MOUTH_MIN_PX = 16  # SSIM's window is 11 px wide

__all__ = ["FrameScores", "compare_crops", "face_rectangles", "find_landmarks", "in_frame", "mouth_box"]


def compare_crops(frames: Sequence[np.ndarray], boxes: np.ndarray, size_px: int) -> np.ndarray:
    """The boxes of the frames, each resized bilinearly to a square: uint8 (N, size_px, size_px, 3)."""
    crops = [cut(frame, box) for frame, box in zip(frames, boxes, strict=True)]
    return np.stack([cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_LINEAR) for crop in crops])


def in_frame(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Points (N, K, 2) in crop coordinates 0..1 -> pixels of the frames, with the crops' boxes (N, 4)."""
    return boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])


def face_rectangles(mesh: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Where dlib's detector would put its rectangle in each frame: (N, 4) in frame pixels.

    Args:
        mesh: (N, 478, 3) the clip's stored mesh, crop coordinates 0..1.
        boxes: (N, 4) crop boxes in frame pixels.
    """
    points = in_frame(mesh[:, :, :2], boxes)
    extents = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return np.stack([hog_like_rectangle(extent) for extent in extents])


def find_landmarks(frames: Sequence[np.ndarray], boxes: np.ndarray, rectangles: np.ndarray, size_px: int) -> np.ndarray:
    """dlib's 68 points of each frame, in pixels of the comparison crop: (N, 68, 2).

    Target and prediction are both searched from the target's rectangle: a detector's own rectangles jump by several
    pixels, and where it finds no face in a bad frame that frame would not count. The search runs on the whole frame,
    whose aspect ratio the predictor knows; the crop's is another.

    Args:
        frames: uint8 RGB (H, W, 3).
        boxes: (N, 4) crop boxes, frame pixels.
        rectangles: (N, 4) from `face_rectangles`.
        size_px: Side of the comparison crop.
    """
    points = np.stack([landmarks68(frame, r) for frame, r in zip(frames, rectangles, strict=True)])
    return (points - boxes[:, None, :2]) * (size_px / (boxes[:, None, 2:] - boxes[:, None, :2]))


def mouth_box(landmarks: np.ndarray, size_px: int, margin: float) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the mouth region in a square crop.

    Args:
        landmarks: (68, 2) crop coordinates 0..1.
        size_px: Side of the crop.
        margin: Added on each side, as a share of the lips' width.
    """
    lips = landmarks[LIPS] * size_px
    pad = margin * (lips[:, 0].max() - lips[:, 0].min())
    low, high = lips.min(axis=0) - pad, lips.max(axis=0) + pad
    short = np.maximum(MOUTH_MIN_PX - (high - low), 0) / 2
    x1, y1 = np.clip(np.floor(low - short), 0, size_px - MOUTH_MIN_PX).astype(int)
    x2, y2 = np.clip(np.ceil(high + short), (x1 + MOUTH_MIN_PX, y1 + MOUTH_MIN_PX), size_px).astype(int)
    return int(x1), int(y1), int(x2), int(y2)


def _batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


class FrameScores:
    """Metrics of one candidate on one clip that need nothing but the frame itself.

    Args:
        protocol: Crop size and mouth region.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._values: dict[str, list[np.ndarray]] = {}

    def update(
        self,
        pred: np.ndarray,
        target: np.ndarray,
        pred_landmarks: np.ndarray,
        target_landmarks: np.ndarray,
        lips_01: np.ndarray,
    ) -> None:
        """Add frames.

        The target against itself, the very same array, is known without looking: PSNR is infinite, SSIM 1. (Computed,
        SSIM is 1 as well, but for rounding in small or very even mouth regions, 1e-15.)

        Args:
            pred: uint8 RGB crops (N, S, S, 3).
            target: The target's crops of the same frames.
            pred_landmarks: (N, 68, 2) dlib landmarks of `pred`, crop pixels, NaN where none.
            target_landmarks: The same of `target`.
            lips_01: (N, 68, 2) the clip's stored landmarks in crop coordinates, which place the mouth region.
        """
        if pred is target:
            for region in ("", "_mouth"):
                self._add(f"psnr{region}", np.full(len(pred), np.inf))
                self._add(f"ssim{region}", np.ones(len(pred)))
        else:
            for p, t, points in zip(pred, target, lips_01, strict=True):
                self._compare("", p, t)
                x1, y1, x2, y2 = mouth_box(points, self.protocol.crop_px, self.protocol.mouth_margin)
                self._compare("_mouth", p[y1:y2, x1:x2], t[y1:y2, x1:x2])
        self._add("lmd", lmd(pred_landmarks, target_landmarks, centred=False).numpy())
        self._add("lmd_centred", lmd(pred_landmarks, target_landmarks, centred=True).numpy())

    def _compare(self, region: str, pred: np.ndarray, target: np.ndarray) -> None:
        """One image at a time: as float64 a whole chunk leaves the processor's cache, and takes 80 MB."""
        images = _batch(pred[None]), _batch(target[None])
        self._add(f"psnr{region}", psnr(*images).numpy())
        self._add(f"ssim{region}", ssim(*images).numpy())

    def _add(self, name: str, values: np.ndarray) -> None:
        self._values.setdefault(name, []).append(values)

    def result(self) -> dict[str, float | int | None]:
        """Means over the clip's frames, and how many frames stayed out of them.

        Frames identical to the target have no finite PSNR and stay out of its mean; if all are identical it is
        infinite. Frames in which either lip detection failed stay out of LMD; if all failed it is None.
        """
        out: dict[str, float | int | None] = {}
        for name, parts in self._values.items():
            values = np.concatenate(parts)
            usable = values[np.isfinite(values)]
            if len(usable):
                out[name] = float(usable.mean())
            else:
                out[name] = float("inf") if np.isinf(values).any() else None
        out["frames"] = sum(len(part) for part in self._values["psnr"])
        out["psnr_infinite_frames"] = int(np.isinf(np.concatenate(self._values["psnr"])).sum())
        out["lmd_skipped_frames"] = int(np.isnan(np.concatenate(self._values["lmd"])).sum())
        return out

# SPDX-License-Identifier: Apache-2.0
"""From the frames of one clip to the numbers of one row, while the frames stream by."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import torch

from lipsync_bench.evaluation.protocol import Protocol
from metrics.cpbd import cpbd
from metrics.jitter import jitter
from metrics.lmd import lmd
from metrics.lpips import LPIPSNetwork, lpips
from metrics.mse import mse
from metrics.psnr import psnr
from metrics.psnr_uint8 import NO_ERROR_DB, psnr_uint8
from metrics.ssim import ssim

LIPS = slice(48, 68)  # of the 68 landmarks
MOUTH_MIN_PX = 16  # SSIM's window is 11 px wide
SCRIPT_PX = 256  # to which ATVGnet's script resizes both images

__all__ = ["FrameScores", "mouth_box"]


def mouth_box(points: np.ndarray, size_hw: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the mouth region in a crop.

    Args:
        points: (68, 2) landmarks, crop pixels.
        size_hw: Of the crop.
        margin: Added on each side, as a share of the lips' width.
    """
    lips = points[LIPS]
    pad = margin * (lips[:, 0].max() - lips[:, 0].min())
    low, high = lips.min(axis=0) - pad, lips.max(axis=0) + pad
    short = np.maximum(MOUTH_MIN_PX - (high - low), 0) / 2
    size = np.array(size_hw[::-1])
    x1, y1 = np.clip(np.floor(low - short), 0, size - MOUTH_MIN_PX).astype(int)
    x2, y2 = np.clip(np.ceil(high + short), (x1 + MOUTH_MIN_PX, y1 + MOUTH_MIN_PX), size).astype(int)
    return int(x1), int(y1), int(x2), int(y2)


def _image(crop: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None]


def _script(crop: np.ndarray) -> torch.Tensor:
    return _image(cv2.resize(crop, (SCRIPT_PX, SCRIPT_PX), interpolation=cv2.INTER_AREA))


@contextmanager
def _one_thread() -> Iterator[None]:
    """For images: several threads gain next to nothing on one this small.

    Beside other work they wait for each other, and a clip takes three times as long (docs/performance.md); and the last
    digits of a sum depend on their number.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class FrameScores:
    """Metrics of one candidate on one clip that need nothing but the frames themselves.

    Args:
        protocol: Crop size, mouth region, and whether there is a target to compare with.
        networks: Of LPIPS, by column name.
    """

    def __init__(self, protocol: Protocol, networks: dict[str, LPIPSNetwork] | None = None) -> None:
        self.protocol = protocol
        self._paired = protocol.pairing == "paired"
        self._networks = networks or {}
        self._values: dict[str, list[float]] = {}  # numbers, not arrays: small arrays pin the heap between big ones
        self._tail = np.empty((0, 68, 2))  # the last two frames' landmarks: jitter looks at three in a row

    def add_crops(self, pred: Sequence[np.ndarray], target: Sequence[np.ndarray], lips: np.ndarray) -> None:
        """Add frames that both have a crop of.

        The target against itself, the very same list, is known without looking: PSNR is infinite, SSIM 1. (Computed,
        SSIM is 1 as well, but for rounding in small or very even mouth regions, 1e-15.)

        Args:
            pred: uint8 RGB crops (H, W, 3).
            target: The target's crops of the same frames; not looked at under an unpaired protocol.
            lips: (N, 68, 2) the clip's stored landmarks in crop pixels, which place the mouth region.
        """
        count = len(pred)
        if not count:
            return
        if self._paired and pred is target:
            for region in ("", "_mouth"):
                self._add(f"psnr{region}", np.full(count, np.inf))
                self._add(f"ssim{region}", np.ones(count))
            for name in ("mse", *self._networks):
                self._add(name, np.zeros(count))
            self._add("psnr_uint8", np.full(count, NO_ERROR_DB))
        elif self._paired:
            for name, network in self._networks.items():
                for p, t in zip(pred, target, strict=True):
                    self._add(name, lpips(_image(p), _image(t), network).numpy())
            with _one_thread():
                for p, t, points in zip(pred, target, lips, strict=True):
                    self._compare(p, t, points)
        with _one_thread():
            for p in pred:
                self._add("cpbd", cpbd(_image(p)).numpy())

    def _compare(self, pred: np.ndarray, target: np.ndarray, points: np.ndarray) -> None:
        """One image at a time: as float64 a whole chunk leaves the processor's cache, and takes 80 MB."""
        images = _image(pred), _image(target)
        self._add("psnr", psnr(*images).numpy())
        self._add("ssim", ssim(*images).numpy())
        self._add("mse", mse(*images).numpy())
        self._add("psnr_uint8", psnr_uint8(_script(pred), _script(target)).numpy())
        if np.isfinite(points[LIPS]).all():
            x1, y1, x2, y2 = mouth_box(points, (pred.shape[0], pred.shape[1]), self.protocol.mouth_margin)
            mouths = _image(pred[y1:y2, x1:x2]), _image(target[y1:y2, x1:x2])
            self._add("psnr_mouth", psnr(*mouths).numpy())
            self._add("ssim_mouth", ssim(*mouths).numpy())

    def add_landmarks(self, pred: np.ndarray, target: np.ndarray) -> None:
        """Add the landmarks of the next frames, all of them, in order.

        Args:
            pred: (N, 68, 2) dlib landmarks of the prediction, crop pixels, NaN where none.
            target: The same of the target.
        """
        if self._paired:
            self._add("lmd", lmd(pred, target, centred=False).numpy())
            self._add("lmd_centred", lmd(pred, target, centred=True).numpy())
        points = np.concatenate([self._tail, pred])
        self._add("jitter", jitter(points).numpy())
        self._tail = points[-2:]

    def add_seen(self, seen: np.ndarray) -> None:
        """Add whether a face was found in each of the next frames: bool (N,)."""
        self._add("detection_failure", 1.0 - seen)

    def _add(self, name: str, values: np.ndarray) -> None:
        self._values.setdefault(name, []).extend(values.tolist())

    def result(self) -> dict[str, float | int | None]:
        """Means over the clip's frames, and how many frames stayed out of them.

        Frames identical to the target have no finite PSNR and stay out of its mean; if all are identical it is
        infinite. Frames without landmarks stay out of LMD and jitter, frames without a box out of everything that
        looks at crops; if all failed the value is None.
        """
        out: dict[str, float | int | None] = {}
        for name, found in self._values.items():
            values = np.array(found)
            usable = values[np.isfinite(values)]
            if len(usable):
                out[name] = float(usable.mean())
            else:
                out[name] = float("inf") if np.isinf(values).any() else None
        if self._paired:
            out["psnr_infinite_frames"] = int(np.isinf(self._values.get("psnr", [])).sum())
            out["lmd_skipped_frames"] = int(np.isnan(self._values["lmd"]).sum())
        return out

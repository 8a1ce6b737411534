# SPDX-License-Identifier: Apache-2.0
"""FFHQ's aligned square, about eyes and mouth and turned with the head, and the way back into the frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.boxes import neighbours
from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule, Cut, Resize
from lipsync_bench.datamodules.faces.geometry import Geometry, runs

SOFT_EDGE = 0.1
"""Width of the edge over which a pasted square fades, as a share of its side; it lies inside the square."""
_MAX_STEP = 1.25  # pixels between two samples: from here on bilinear interpolation skips some

__all__ = ["SOFT_EDGE", "FFHQQuad", "QuadCut"]


@dataclass(frozen=True)
class QuadCut(Cut):
    """A turned square of a frame, which may exceed it.

    Args:
        centre: x, y in pixels; whole numbers are the centres of pixels.
        right: From the centre to the middle of the right edge, x, y.
    """

    centre: tuple[float, float]
    right: tuple[float, float]

    @property
    def corners(self) -> np.ndarray:
        """float64 (4, 2): upper left, lower left, lower right, upper right."""
        centre, x, y = np.array(self.centre), np.array(self.right), self._down
        return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])

    @property
    def side(self) -> float:
        """In pixels."""
        return 2 * math.hypot(*self.right)

    @property
    def _down(self) -> np.ndarray:
        return np.array([-self.right[1], self.right[0]])

    def _to_frame(self, size_hw: tuple[int, int]) -> np.ndarray:
        """(2, 3): from pixels of a face of this size to pixels of the frame."""
        across, down = 2 * np.array(self.right) / size_hw[1], 2 * self._down / size_hw[0]
        return np.stack([across, down, self.corners[0] + (across + down) / 2], axis=1)

    def face(self, frame: np.ndarray, size_hw: tuple[int, int], resize: Resize = "bilinear") -> np.ndarray:
        """The square, sampled bilinearly. Where it exceeds the frame, the frame's edge is repeated.

        A square that is larger than the result is sampled at a multiple of the result's size and averaged over areas,
        whatever `resize` is, so that nothing aliases (FFHQ samples at 4096 px for the same reason).
        """
        height, width = size_hw
        times = max(1, math.ceil(self.side / (_MAX_STEP * min(size_hw))))
        sampled = cv2.warpAffine(
            frame,
            self._to_frame((times * height, times * width)),
            (times * width, times * height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return sampled if times == 1 else cv2.resize(sampled, (width, height), interpolation=cv2.INTER_AREA)

    def paste(self, frame: np.ndarray, face: np.ndarray) -> np.ndarray:
        """The square is filled bilinearly and fades into the frame over the outer tenth of its side (`SOFT_EDGE`).

        A face with more pixels than the square is averaged over areas first.
        """
        out = frame.copy()
        x1, y1 = np.floor(self.corners.min(axis=0)).astype(int).clip(0, None)
        x2, y2 = (np.ceil(self.corners.max(axis=0)).astype(int) + 1).clip(None, frame.shape[1::-1])
        if x1 >= x2 or y1 >= y2:
            return out
        side = max(1, round(self.side))
        if min(face.shape[:2]) > _MAX_STEP * side:
            face = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
        to_part = self._to_frame((face.shape[0], face.shape[1])) - np.array([[0, 0, x1], [0, 0, y1]])
        filled = cv2.warpAffine(
            face, to_part, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        part = frame[y1:y2, x1:x2].astype(np.float32)
        weight = self._weight(np.arange(x1, x2), np.arange(y1, y2))[..., None]
        out[y1:y2, x1:x2] = np.rint(part + weight * (filled - part)).astype(np.uint8)
        return out

    def _weight(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """float32 (len(y), len(x)): 0 outside of the square, 1 where the soft edge ends, without a kink between."""
        across = (x - self.centre[0]).astype(np.float32)[None, :]
        down = (y - self.centre[1]).astype(np.float32)[:, None]
        (right_x, right_y), length = self.right, math.hypot(*self.right)
        to_edge = length - np.maximum(
            abs(across * right_x + down * right_y) / length, abs(down * right_x - across * right_y) / length
        )
        rise = np.clip(to_edge / (SOFT_EDGE * self.side), 0, 1)
        return np.asarray(rise * rise * (3 - 2 * rise))


@dataclass(frozen=True)
class FFHQQuad(CropRule):
    """The square that FFHQ aligns photographs by, smoothed over time.

    Args:
        smoothing: Frames of the centred mean, odd, at every run of frames with a face by itself, whose first and last
            square are repeated; 0 for none.

    Reference: Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", 2019; the
    formula is that of "Progressive Growing of GANs", 2018, appendix C. LipFormer (section 4.1) aligns frames, cuts and
    resizes them.

    Differs: FFHQ has single photographs and nothing to smooth. Where the square exceeds the photograph it is mirrored
    and blurred there; here the edge is repeated.
    """

    name = "ffhq"
    smoothing: int = 5

    def __post_init__(self) -> None:
        if self.smoothing < 0 or (self.smoothing and self.smoothing % 2 == 0):
            raise ValueError(f"smoothing is {self.smoothing}. Expected an odd number of frames, or 0 (--recipe.smooth)")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(["landmarks"])

    def text(self) -> str:
        return f"ffhq~{self.smoothing}" if self.smoothing else "ffhq"

    def cuts(self, geometry: Geometry) -> Sequence[Cut | None]:
        if geometry.landmarks is None:
            raise ValueError(
                "no 68 points of this face. Expected them for the crop rule ffhq: bench prepare finds them; or cut "
                "the faces by another rule (--recipe.crop mesh)"
            )
        cuts: list[Cut | None] = [None] * len(geometry)
        for start, stop in runs(geometry.visible):
            squares = _squares(geometry.landmarks[start:stop].astype(np.float64))
            if not np.isfinite(squares).all():
                raise ValueError(
                    f"the 68 points of frames {start} to {stop - 1} are not those of faces: eyes and mouth coincide. "
                    "Expected upright faces; or cut them by another rule (--recipe.crop mesh)"
                )
            smooth = neighbours(squares, self.smoothing // 2).mean(axis=-1)
            cuts[start:stop] = [QuadCut((x, y), (right_x, right_y)) for x, y, right_x, right_y in smooth.tolist()]
        return cuts


def _squares(landmarks: np.ndarray) -> np.ndarray:
    """(T, 68, 2) -> (T, 4): centre and `QuadCut.right`. Their mean over frames is a square again."""
    left, right = landmarks[:, 36:42].mean(axis=1), landmarks[:, 42:48].mean(axis=1)
    eyes, mouth = (left + right) / 2, (landmarks[:, 48] + landmarks[:, 54]) / 2
    between, down = right - left, mouth - eyes
    axis = between - down[:, ::-1] * (-1, 1)
    half = np.maximum(2 * np.linalg.norm(between, axis=1), 1.8 * np.linalg.norm(down, axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):  # points that coincide are refused by name
        axis *= (half / np.linalg.norm(axis, axis=1))[:, None]
    return np.concatenate([eyes + 0.1 * down, axis], axis=1)

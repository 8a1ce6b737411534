# SPDX-License-Identifier: Apache-2.0
"""The rectangle about mouth and nose that DINet and G4G cut by 68 points, 416 high and 320 wide."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.faces.crop_rules.rule import CropRule, Cut
from lipsync_bench.datamodules.faces.geometry import Geometry, runs

HULL = slice(0, 27)
"""Points of the jaw and the brows."""
SIGMA = 0.05
"""Deviation of the Gaussian that smooths a face mask, as a share of the face's width; the paper gives none."""
_MAX_CHANGE = 1.5
_ELSE = "or cut the faces by another rule (--recipe.crop mesh)"

__all__ = ["HULL", "SIGMA", "LandmarkCrop", "LandmarkCut", "soft_mask"]


def soft_mask(points: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The weight of a generated face: the hull of points, smoothed by a Gaussian.

    The hull ends two deviations before the face's border, so that the weight is all but 0 there: the rectangle is
    narrower than most faces.

    Args:
        points: (N, 2), x y in pixels of the face.
        size_hw: Height and width of the face.

    Returns:
        float32 (H, W) in [0, 1].
    """
    height, width = size_hw
    sigma = SIGMA * width
    mask = np.zeros(size_hw, np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points).astype(np.int32)), (1.0,))
    edge = round(2 * sigma)
    mask[:edge] = mask[height - edge :] = 0
    mask[:, :edge] = mask[:, width - edge :] = 0
    return cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)


@dataclass(frozen=True)
class LandmarkCut(BoxCut):
    """A rectangle with the points that its face mask is made of.

    Args:
        outline: (27, 2), the points of `HULL` in pixels of the frame.
    """

    outline: np.ndarray = field(compare=False)

    def blend(self, frame: np.ndarray, face: np.ndarray) -> np.ndarray:
        """A copy of the frame with a face over the cut, through its face mask; as `paste`."""
        x1, y1, x2, y2 = self.box
        mask = soft_mask(self.outline - (x1, y1), (y2 - y1, x2 - x1))[..., None]
        part = self.crop(frame).astype(np.float32)
        filled = cv2.resize(face, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
        out = frame.copy()
        out[y1:y2, x1:x2] = np.rint(part + mask * (filled - part)).astype(np.uint8)
        return out


@dataclass(frozen=True)
class LandmarkCrop(CropRule):
    """DINet's rectangle, 3.25 R high and 2.5 R wide.

    With points counted from 0 and cut to whole pixels, r = int(max((y_max - y_29) k, (x_54 - x_48) k) / 2), where y_max
    is the lowest of all points; R = 4 (int(max r / 4) + 1), the maximum over some frames. Frame t is cut at rows
    y_29 - R to y_29 + 2 R + R / 4, columns x_33 - R - R / 4 to x_33 + R + R / 4, by its own points.

    Args:
        enlarge: k; 1.05 at inference, 1.05 to 1.15 in training.
        frames: over which the maximum is taken, odd; a run of frames with a face that is shorter is taken as a whole.

    Reference: Zhang et al., "DINet: Deformation Inpainting Network for Realistic Face Visually Dubbing on High
    Resolution Video", AAAI 2023, facts of the released code; G4G, 4.3, prints the size alone.

    Differs: the points are dlib's, not OpenFace's. DINet takes the maximum over 9 frames in training and over 5 at
    inference, with which the rectangle follows the jaw and tells how far the mouth is open; here it is taken over 5
    seconds. k is fixed in training, because faces are cut once.
    """

    name = "g4g"
    enlarge: float = 1.05
    frames: int = 125

    def __post_init__(self) -> None:
        if not 0.5 <= self.enlarge <= 3 or self.frames < 1 or self.frames % 2 == 0:
            raise ValueError(
                f"the crop rule g4g with enlarge {self.enlarge}, frames {self.frames}. Expected 0.5 to 3, and an odd "
                "number of frames (--recipe.crop)"
            )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(["landmarks"])

    def text(self) -> str:
        return f"g4g*{self.enlarge:g}"

    def cuts(self, geometry: Geometry) -> Sequence[Cut | None]:
        """As `CropRule.cuts`.

        Raises:
            ValueError: There are no points; or, as published, a rectangle leaves the frame, or r changes by more than
                half of its smallest value within `frames`.
        """
        if geometry.landmarks is None:
            raise ValueError(
                "no 68 points of this face. Expected them for the crop rule g4g: bench prepare finds them; " + _ELSE
            )
        cuts: list[Cut | None] = [None] * len(geometry)
        for start, stop in runs(geometry.visible):
            boxes = self._boxes(geometry.landmarks[start:stop], start, geometry.size_hw)
            outlines = geometry.landmarks[start:stop, HULL].astype(np.float64)
            cuts[start:stop] = [LandmarkCut((*box,), outline) for box, outline in zip(boxes, outlines, strict=True)]
        return cuts

    def _boxes(self, landmarks: np.ndarray, first: int, size_hw: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """Of the frames of a run, which begins with frame `first`."""
        points = np.trunc(landmarks.astype(np.float64))
        down, across = points[..., 1].max(axis=1) - points[:, 29, 1], points[:, 54, 0] - points[:, 48, 0]
        half = np.floor(np.maximum(down, across) * self.enlarge / 2)
        largest, smallest = (f(half, min(self.frames, 2 * len(half) - 1)) for f in (maximum_filter1d, minimum_filter1d))
        if not (np.isfinite(half).all() and smallest.min() >= 4):
            raise ValueError(
                f"the 68 points of frames {first} to {first + len(half) - 1} are not those of faces of 8 pixels or "
                f"more. Expected larger ones; {_ELSE}"
            )
        if (largest > _MAX_CHANGE * smallest).any():
            place = first + int((largest / smallest).argmax())
            raise ValueError(
                f"the face changes its size by more than {_MAX_CHANGE - 1:.0%} within {self.frames} frames about frame "
                f"{place}. Expected less for the crop rule g4g: leave this video out; {_ELSE}"
            )
        radius = 4 * (np.floor(largest / 4) + 1)
        y, x = points[:, 29, 1], points[:, 33, 0]
        boxes = np.stack([x - 1.25 * radius, y - radius, x + 1.25 * radius, y + 2.25 * radius], axis=1)
        out = (boxes[:, :2] < 0).any(axis=1) | (boxes[:, 2:] > size_hw[::-1]).any(axis=1)
        if out.any():
            place = int(out.argmax())
            found = " ".join(f"{value:.0f}" for value in boxes[place])
            raise ValueError(
                f"the rectangle of frame {first + place}, {found} (x1 y1 x2 y2), leaves the frame of {size_hw[1]} x "
                f"{size_hw[0]} pixels. Expected it inside for the crop rule g4g: leave this video out; {_ELSE}"
            )
        return [(int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2 in boxes]

# SPDX-License-Identifier: Apache-2.0
"""The landmark image and the face mask, which are drawn from 68 points.

Whose points the image shows the paper says in three ways. Those of the target frame would give its mouth away in
training and impose the old one when a video is dubbed. By default they are those of the first reference; the pose-true
alternative is the target's own without jaw and mouth (choice).
"""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.boxes import BoxCut
from lipsync_bench.datamodules.faces.crop_rules.g4g import HULL, soft_mask
from lipsync_bench.datamodules.faces.crop_rules.rule import Cut
from lipsync_bench.models.g4g.regions import HEIGHT

Landmarks = Literal["reference", "source_without_mouth"]
INPUTS: dict[Landmarks, tuple[str, str]] = {
    "reference": ("reference_landmarks", "reference_mask"),
    "source_without_mouth": ("source_landmarks", "source_mask"),
}
"""What the landmark image and the face mask are called among a recipe's inputs."""
_LINES = [range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36)]
_RINGS = [range(36, 42), range(42, 48), range(48, 60), range(60, 68)]
_SHOWN = frozenset([0, 1, 2, 14, 15, 16, *range(17, 48)])  # of the target's own points
_LINE_PX = 2  # at 416 x 320
_SHIFT = 4  # bits of a pixel's fraction

__all__ = ["INPUTS", "Landmarks", "draw_landmarks", "draw_mask", "points_in_face"]


def points_in_face(cut: Cut, points: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Points of a frame (N, 2) in pixels of the face that is cut out of it.

    Raises:
        ValueError: The cut is no rectangle.
    """
    if not isinstance(cut, BoxCut):
        raise ValueError(
            f"landmarks in a {type(cut).__name__}. Expected a crop rule that cuts rectangles, such as g4g "
            "(--recipe.crop)"
        )
    return cut.points(points, size_hw)


def draw_landmarks(points: np.ndarray, size_hw: tuple[int, int], kind: Landmarks) -> np.ndarray:
    """White lines on black, uint8 (H, W): jaw, brows, nose, eyes, lips; of the source without jaw and lips.

    Args:
        points: (68, 2), x y in pixels of the face.
        size_hw: Of the face.
        kind: Whose points they are.
    """
    image = np.zeros(size_hw, np.uint8)
    fixed = np.rint(np.clip(points, -1e4, 1e4) * (1 << _SHIFT)).astype(np.int32)
    pieces = [(line, False) for line in _LINES] + [(ring, True) for ring in _RINGS]
    for numbers, closed in pieces:
        shown = [list(numbers)] if kind == "reference" else _stretches(list(numbers))
        for stretch in shown:
            whole = closed and len(stretch) == len(numbers)
            cv2.polylines(image, [fixed[stretch]], whole, (255,), _thickness(size_hw), cv2.LINE_8, _SHIFT)
    return image


def _thickness(size_hw: tuple[int, int]) -> int:
    return max(1, round(_LINE_PX * size_hw[0] / HEIGHT))


def _stretches(numbers: Sequence[int]) -> list[list[int]]:
    """The parts of a line whose points are shown, of two points or more."""
    parts: list[list[int]] = [[]]
    for number in numbers:
        if number in _SHOWN:
            parts[-1].append(number)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if len(part) > 1]


def draw_mask(points: np.ndarray, size_hw: tuple[int, int], kind: Landmarks) -> np.ndarray:
    """The face mask, uint8 (H, W): the smoothed hull of jaw and brows; of the source's points those that are shown."""
    hull = points[HULL] if kind == "reference" else points[sorted(_SHOWN)]
    return np.rint(255 * soft_mask(hull, size_hw)).astype(np.uint8)

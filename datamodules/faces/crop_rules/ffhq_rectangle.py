# SPDX-License-Identifier: Apache-2.0
"""VideoReTalking's rectangle: the bounding box of FFHQ's square in the first frame with a face, the same for all."""

from dataclasses import dataclass

import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.boxes import NO_PADS, BoxRule, in_frame
from lipsync_bench.datamodules.faces.crop_rules.ffhq import FFHQQuad, QuadCut
from lipsync_bench.datamodules.faces.geometry import Geometry

_BORDER, _LEAST_BORDER_PX = 0.1, 3

__all__ = ["FFHQRectangle", "ffhq_rectangle"]


def ffhq_rectangle(corners: np.ndarray, size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 around FFHQ's square, whole pixels inside the frame.

    Args:
        corners: (4, 2), those of `QuadCut.corners`.
        size_hw: Of the frame.

    Facts of the released code: the square's bounding box with a border is cut out first, and the lower edge is limited
    by the width of that, not by its height.
    """
    height, width = size_hw
    side = float(np.hypot(*(corners[3] - corners[0])))
    border = max(int(np.rint(_BORDER * side)), _LEAST_BORDER_PX)
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - border, 0).tolist()
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + border, (width, height)).tolist()
    inside = corners - (left, top) + 0.5
    x1, y1 = np.maximum(inside.min(axis=0), 0).astype(int).tolist()
    x2, y2 = np.minimum(inside.max(axis=0), right - left).astype(int).tolist()
    return left + x1, top + y1, min(left + x2, right), min(top + y2, bottom, height)


@dataclass(frozen=True)
class FFHQRectangle(BoxRule):
    """The faces that D-Net sees: whole heads with some background, which do not move with the head.

    Differs: the published pictures of VoxCeleb are cut by the same idea, a box for a whole video, but by another box
    (the union of the face boxes of "First Order Motion Model", widened).
    """

    name = "ffhq_rectangle"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(["landmarks"])

    def text(self) -> str:
        return "ffhq_rectangle"

    def boxes(self, geometry: Geometry) -> np.ndarray:
        quads = FFHQQuad(smoothing=0).cuts(geometry)
        first = next((cut for cut in quads if isinstance(cut, QuadCut)), None)
        box = (0, 0, 0, 0) if first is None else ffhq_rectangle(first.corners, geometry.size_hw)
        return in_frame(np.tile(np.array(box, np.float64), (len(geometry), 1)), NO_PADS, geometry)

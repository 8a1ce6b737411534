# SPDX-License-Identifier: Apache-2.0
"""ATVG's square about dlib's rectangle, with which LipFormer's tables compare faces."""

from dataclasses import dataclass

import numpy as np

from lipsync_bench.datamodules.faces.crop_rules.boxes import NO_PADS, BoxRule, in_frame
from lipsync_bench.datamodules.faces.geometry import Geometry

__all__ = ["ATVGSquare", "atvg_squares"]


def atvg_squares(rectangles: np.ndarray) -> np.ndarray:
    """The squares about dlib's rectangles (T, 4), float64 (T, 4); they may extend beyond the frame."""
    left, top, right, bottom = np.trunc(rectangles.astype(np.float64)).T
    x, y = left + np.trunc((right - left) / 2), top + np.trunc((bottom - top) / 2)
    half = np.trunc(0.64 * (bottom - top))
    return np.stack([x - half, y - half, x + half, y + half], axis=1)


@dataclass(frozen=True)
class ATVGSquare(BoxRule):
    """The square of half-side int(0.64 h) about the middle of dlib's rectangle, of width w and height h.

    The rectangle is truncated to whole pixels; its middle is its upper left corner plus int(w / 2), int(h / 2), where
    w = right - left and h = bottom - top. Nothing is smoothed.

    Reference: Chen et al., "Hierarchical Cross-Modal Talking Face Generation With Dynamic Pixel-Wise Loss", 2019, and
    facts of the released script.

    Differs: a square that exceeds the frame is cut at its border, as the boxes of the other rules are, and is not a
    square then; how the script treats one is not known here. What follows there, an alignment at 163 px, is no part of
    the rule.
    """

    name = "atvg"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(["boxes:dlib"])

    def text(self) -> str:
        return "atvg"

    def boxes(self, geometry: Geometry) -> np.ndarray:
        return in_frame(atvg_squares(geometry.boxes_of("dlib")), NO_PADS, geometry)

# SPDX-License-Identifier: Apache-2.0
"""Where one face is in each frame of a video: all that a crop rule or a paste needs, about 1 KB a frame."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

_JAW = (323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93)
_CHEEKS = (116, 117, 118, 119, 120, 197, 349, 348, 347, 346, 345)  # below the eyes, over the bridge of the nose
JAW_POINTS = len(_JAW)
CONTOUR = (*_JAW, *_CHEEKS)
"""Numbers of the Face Mesh points around the part of the face that speech moves; the first `JAW_POINTS` are the jaw."""

__all__ = ["CONTOUR", "JAW_POINTS", "Geometry", "runs"]


@dataclass(frozen=True)
class Geometry:
    """One face through T frames, in pixels of the frames.

    Args:
        size_hw: Height and width of the frames.
        visible: bool (T,), False where there is no face to cut out; the other values are meaningless there.
        mesh_boxes: float32 (T, 4), the tight box of the Face Mesh, x1 y1 x2 y2.
        contours: float32 (T, 30, 2), the mesh points `CONTOUR`.
        landmarks: float32 (T, 68, 2), or None where nobody asked for them.
        boxes: The boxes of each detector that ran, by its name: float32 (T, 4) as it gave them, x1 y1 x2 y2; they may
            exceed the frame.
        mesh_crops: float32 (T, 4), what the rule `mesh` gave when the clip was prepared; None where it did not.
    """

    size_hw: tuple[int, int]
    visible: np.ndarray
    mesh_boxes: np.ndarray
    contours: np.ndarray
    landmarks: np.ndarray | None = None
    boxes: Mapping[str, np.ndarray] = field(default_factory=dict)
    mesh_crops: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.visible)

    def boxes_of(self, detector: str) -> np.ndarray:
        """The boxes of a detector, float32 (T, 4).

        Raises:
            ValueError: It did not run on this video.
        """
        if detector not in self.boxes:
            ran = ", ".join(self.boxes) or "none"
            raise ValueError(
                f"no boxes of the detector {detector} (there are those of: {ran}). Add them with: bench prepare "
                f"--boxes {detector}; or cut the faces by another rule (--recipe.crop mesh)"
            )
        return self.boxes[detector]


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Each stretch of consecutive True values in a mask (T,): its first index, and the index after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]

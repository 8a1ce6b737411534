# SPDX-License-Identifier: Apache-2.0
"""What crop rules have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from lipsync_bench.datamodules.faces.geometry import Geometry

Resize = Literal["bilinear", "area"]

__all__ = ["CropRule", "Cut", "Resize"]


class Cut(ABC):
    """Where the face of one frame is cut out."""

    @abstractmethod
    def face(self, frame: np.ndarray, size_hw: tuple[int, int], resize: Resize = "bilinear") -> np.ndarray:
        """The face of a frame.

        Args:
            frame: uint8 (H, W, 3).
            size_hw: Height and width of the result; the aspect ratio of the cut is not kept.
            resize: OpenCV's bilinear interpolation, or the mean over areas.

        Returns:
            uint8 (h, w, 3).
        """

    @abstractmethod
    def paste(self, frame: np.ndarray, face: np.ndarray) -> np.ndarray:
        """A copy of the frame with a face over the cut; the inverse of `face`.

        Args:
            frame: uint8 (H, W, 3).
            face: uint8 (h, w, 3), of any size.
        """


class CropRule(ABC):
    """How faces are cut out. Rules are frozen dataclasses of plain values; equal ones cut alike."""

    name: ClassVar[str]
    """Of the kind of rule, in `Recipe.key()`."""

    @property
    @abstractmethod
    def needs(self) -> frozenset[str]:
        """The geometry that it reads beyond the Face Mesh: "landmarks", or "boxes:" and the name of a detector."""

    @abstractmethod
    def text(self) -> str:
        """Short and unique, for rows: "mesh", "s3fd+0,10,0,0~5"."""

    @abstractmethod
    def cuts(self, geometry: Geometry) -> Sequence[Cut | None]:
        """The cut of each frame of a whole video; None where no face is visible.

        Raises:
            ValueError: The geometry lacks what the rule needs.
        """

# SPDX-License-Identifier: Apache-2.0
"""How the face of a video is found, followed and cut out: options of preparation and of dubbing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Group, Parameter

from lipsync_bench.datamodules.limits import within

DetectorName = Literal["mediapipe", "dlib", "s3fd"]
CropRule = Literal["mesh", "detector"]
FaceChoice = Literal["largest", "first", "left", "right", "centre"] | int

__all__ = ["CropRule", "DetectorName", "FaceChoice", "FaceOptions"]


@Parameter(name="*", group=Group("Face", sort_key=2))
@dataclass(frozen=True)
class FaceOptions:
    """How a face is found and cut out.

    Args:
        detector: Finds the face; s3fd, with crop detector, as in the scripts of Wav2Lip.
        detector_weights: Weights of the detector s3fd (s3fd-619a316812.pth); the others have none.
        crop: Rule for the rectangle that is cut out: mesh, steady and independent of the jaw; detector, as published.
            To dub, that with which the training data was prepared.
        face: Which face where there are several: largest, first, left, right, centre, or a number from 0.
        max_gap_frames: Longest run of frames without the face that is interpolated. A video with a longer one is not
            prepared; dubbed, its frames pass through unchanged.
    """

    detector: DetectorName = "mediapipe"
    detector_weights: Path | None = None
    crop: CropRule = "mesh"
    face: FaceChoice = "largest"
    max_gap_frames: int = 12

    def __post_init__(self) -> None:
        if isinstance(self.face, int):
            within("face", self.face, 0)
        within("max_gap_frames", self.max_gap_frames, 0)

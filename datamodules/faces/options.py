# SPDX-License-Identifier: Apache-2.0
"""How the face of a video is found and followed: options of preparation and of dubbing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from cyclopts import Group, Parameter, Token

from lipsync_bench.datamodules.limits import within
from lipsync_bench.datamodules.option_types import Whole

DetectorName = Literal["mediapipe", "dlib", "s3fd"]
CropRule = Literal["mesh", "detector"]
_FaceName = Literal["largest", "first", "left", "right", "centre"]
FaceChoice = _FaceName | int

__all__ = ["CropRule", "DetectorName", "FaceChoice", "FaceOptions", "FollowOptions"]


def _face(kind: object, tokens: Sequence[Token]) -> str | int:
    text = tokens[-1].value
    if text not in get_args(_FaceName) and not text.isdecimal():
        raise ValueError(f"{text!r}. Expected {', '.join(get_args(_FaceName))}, or a number from 0")
    return int(text) if text.isdecimal() else text


@Parameter(name="*", group=Group("Face", sort_key=2))
@dataclass(frozen=True)
class FollowOptions:
    """Which face of a video is followed, and through which gaps.

    Args:
        face: Which face, if there are several: largest, first, left, right, centre, or a number from 0.
        max_gap_frames: Longest run of frames without the face that is interpolated. A video with a longer one is not
            prepared; dubbed, its frames pass through unchanged.
    """

    face: Annotated[FaceChoice, Parameter(converter=_face)] = "largest"
    max_gap_frames: Whole = 12

    def __post_init__(self) -> None:
        if isinstance(self.face, int):
            within("face", self.face, 0)
        within("max_gap_frames", self.max_gap_frames, 0)


@Parameter(name="*", group=Group("Face", sort_key=2))
@dataclass(frozen=True)
class FaceOptions(FollowOptions):
    """How the face of a prepared clip is found and cut out.

    Args:
        detector: Finds the face; s3fd, with crop detector, as in the scripts of Wav2Lip (bench weights fetch s3fd).
        crop: Rule for the rectangle that the clip itself is cut by: mesh, steady and independent of the jaw; detector,
            that detector's boxes. Methods are fed by their own recipes' tracks.
    """

    detector: DetectorName = "mediapipe"
    crop: CropRule = "mesh"

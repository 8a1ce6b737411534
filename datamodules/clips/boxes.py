# SPDX-License-Identifier: Apache-2.0
"""Where a further detector saw the face of a clip: `<speaker>/<clip>.<detector>.boxes`, beside the clip.

A file is in the safetensors format under another suffix, so that it is never taken for a clip. Tensors, T frames::

    boxes  float32 (T, 4)   x1 y1 x2 y2 in source pixels as the detector gave them; they may exceed the frame
    seen   bool    (T,)     False where it did not see the face; its box is interpolated there

The metadata has one key, `boxes`: a `BoxesHeader` as JSON with sorted keys.
"""

import dataclasses
import json
from pathlib import Path
from typing import get_args

import numpy as np

from lipsync_bench.datamodules.clips.clip import Clip, ClipHeader
from lipsync_bench.datamodules.clips.tensor_file import FileKind, Rows
from lipsync_bench.datamodules.clips.tensor_reader import TensorReader
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.faces.geometry import Geometry
from lipsync_bench.datamodules.faces.options import DetectorName
from lipsync_bench.datamodules.files.disk import write_tensors

SCHEMA = "1"
SUFFIX = ".boxes"
_LARGEST = 1e6
_REPAIR = "Run: bench prepare --boxes DETECTOR (it replaces broken files)"

__all__ = ["SCHEMA", "SUFFIX", "Boxes", "BoxesHeader", "boxes_path", "clip_geometry", "in_clip", "write_boxes"]


def boxes_path(clip_path: Path, detector: str) -> Path:
    """Where the boxes of a detector are: beside the clip, under the same name."""
    return Path(clip_path).with_suffix(f".{detector}{SUFFIX}")


@dataclasses.dataclass(frozen=True)
class BoxesHeader:
    """Which clip the boxes belong to and what found them.

    Args:
        id: Of the clip.
        source_sha256: As in the clip's header.
        clip_settings: The clip's `settings`: other ones may have chosen another face.
        clip_detector_version: The clip's `detector_version`.
        detector: Whose boxes they are.
        detector_version: Its package version and model, with the SHA-256 of its weights where they are a file.
        frames: T.
        schema: Version of this file format.
    """

    id: str
    source_sha256: str
    clip_settings: str
    clip_detector_version: str
    detector: DetectorName
    detector_version: str
    frames: int
    schema: str = SCHEMA

    @classmethod
    def of(cls, clip: ClipHeader, detector: DetectorName, detector_version: str) -> "BoxesHeader":
        """The header of a detector's boxes of a clip."""
        return cls(*clip.preparation, detector, detector_version, clip.frames)

    def belongs_to(self, clip: ClipHeader) -> bool:
        """Whether the boxes are those of this clip's face as it is now."""
        return self == self.of(clip, self.detector, self.detector_version)


def write_boxes(path: Path, header: BoxesHeader, boxes: np.ndarray, seen: np.ndarray) -> None:
    """Write the boxes of one clip, atomically.

    Args:
        path: The file, see `boxes_path`; an existing one is replaced.
        header: Its `frames` must be T.
        boxes: (T, 4).
        seen: bool (T,).

    Raises:
        ValueError: A shape, type or number does not fit.
    """
    shapes = {"boxes": (boxes.shape, (header.frames, 4)), "seen": (seen.shape, (header.frames,))}
    for name, (found, expected) in shapes.items():
        if found != expected:
            raise ValueError(f"{header.id}: {name} has shape {found}, expected {expected}")
    if seen.dtype != np.bool_ or not (np.abs(boxes) <= _LARGEST).all():
        raise ValueError(f"{header.id}: seen is {seen.dtype}, expected bool; boxes must not exceed {_LARGEST:g} px")
    tensors = {"boxes": np.ascontiguousarray(boxes, np.float32), "seen": np.ascontiguousarray(seen)}
    write_tensors(path, tensors, {"boxes": json.dumps(dataclasses.asdict(header), sort_keys=True)})


class Boxes(TensorReader[BoxesHeader]):
    """Lazy reader of one file of boxes, see `TensorReader`."""

    kind = FileKind(
        "boxes",
        "boxes",
        BoxesHeader,
        SCHEMA,
        "the boxes of a detector",
        _REPAIR,
        _REPAIR,
        {"boxes": Rows(np.float32, (4,), beyond=0, largest=_LARGEST), "seen": Rows(np.bool_, beyond=0)},
    )

    def _check(self, header: BoxesHeader) -> None:
        if self.path.suffixes[-2:-1] != [f".{header.detector}"]:
            raise ClipError(f"{self.path}: the boxes of {header.detector}. Expected those of its name. {_REPAIR}")

    def boxes(self) -> np.ndarray:
        """Boxes, float32 (T, 4)."""
        return self._rows("boxes", 0, len(self))

    def seen(self) -> np.ndarray:
        """Where the detector saw the face, bool (T,)."""
        return self._rows("seen", 0, len(self))


def in_clip(clip: ClipHeader, detector: str) -> bool:
    """Whether the clip's own file has the boxes of this detector, as `Clip.geometry` gives them."""
    return clip.detector == detector and (detector == "mediapipe" or clip.crop_rule == "detector")


def clip_geometry(clip: Clip) -> Geometry:
    """The clip's geometry with the boxes of all detectors that lie beside it and belong to it.

    Raises:
        ClipError: A file is broken.
    """
    found = {}
    for detector in get_args(DetectorName):
        with Boxes(boxes_path(clip.path, detector), read="file") as file:
            if file.path.is_file() and file.header.belongs_to(clip.header):
                found[detector] = file.boxes()
    return clip.geometry(found)

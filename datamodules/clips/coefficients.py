# SPDX-License-Identifier: Apache-2.0
"""3DMM coefficients of the faces of a clip, one row a frame: `<speaker>/<clip>.coefficients`, beside the clip.

A file is in the safetensors format under another suffix, so that it is never taken for a clip. Its tensor, T frames::

    coefficients  float32 (T, 262)   0:80 identity, 80:144 expression, 144:224 texture, 224:227 angles, 227:254 light,
                                     254:257 translation, 257:262 crop: width, height, scale, x, y

The crop says how the network that regressed the rest was given the face (`face_crop` of
models/pretrained/face_coefficients.py). The metadata has one key, `coefficients`: a `CoefficientsHeader` as JSON with
sorted keys.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.clips.clip import ClipHeader
from lipsync_bench.datamodules.clips.tensor_file import FileKind, Rows
from lipsync_bench.datamodules.clips.tensor_reader import TensorReader
from lipsync_bench.datamodules.files.disk import write_tensors

SCHEMA = "1"
SUFFIX = ".coefficients"
VALUES = 262
REPAIR = "Run: bench coefficients --root ROOT"
_LARGEST = 1e6

__all__ = [
    "REPAIR",
    "SCHEMA",
    "SUFFIX",
    "VALUES",
    "Coefficients",
    "CoefficientsHeader",
    "coefficients_path",
    "write_coefficients",
]


def coefficients_path(clip_path: Path) -> Path:
    """Where the coefficients of a clip are: beside it, under the same name."""
    return Path(clip_path).with_suffix(SUFFIX)


@dataclasses.dataclass(frozen=True)
class CoefficientsHeader:
    """Which faces the coefficients belong to and what regressed them.

    Args:
        id: Of the clip.
        source_sha256: As in the clip's header.
        clip_settings: The clip's `settings`: other ones may have chosen another face.
        clip_detector_version: The clip's `detector_version`, whose 68 points place the face.
        track: Digest of the track that has the faces.
        network: SHA-256 of the network's weights, or "random".
        frames: T.
        schema: Version of this file format.
    """

    id: str
    source_sha256: str
    clip_settings: str
    clip_detector_version: str
    track: str
    network: str
    frames: int
    schema: str = SCHEMA

    @classmethod
    def of(cls, clip: ClipHeader, track: str, network: str) -> "CoefficientsHeader":
        """The header of coefficients of a clip's track."""
        return cls(*clip.preparation, track, network, clip.frames)

    def belongs_to(self, clip: ClipHeader) -> bool:
        """Whether the coefficients are those of this clip's face as it is now."""
        return self == self.of(clip, self.track, self.network)


def write_coefficients(path: Path, header: CoefficientsHeader, rows: np.ndarray) -> None:
    """Write the coefficients of one clip, atomically.

    Args:
        path: The file, see `coefficients_path`; an existing one is replaced.
        header: Its `frames` must be T.
        rows: (T, 262).

    Raises:
        ValueError: Another shape, or numbers that are not finite or out of range.
    """
    if rows.shape != (header.frames, VALUES) or not (np.abs(rows) <= _LARGEST).all():
        raise ValueError(
            f"{header.id}: coefficients are {rows.shape}. Expected {(header.frames, VALUES)} and no number beyond "
            f"{_LARGEST:g}. Use the weights that the network was published with"
        )
    tensors = {"coefficients": np.ascontiguousarray(rows, np.float32)}
    write_tensors(path, tensors, {"coefficients": json.dumps(dataclasses.asdict(header), sort_keys=True)})


class Coefficients(TensorReader[CoefficientsHeader]):
    """Lazy reader of the coefficients of one clip, see `TensorReader`."""

    kind = FileKind(
        "coefficients",
        "coefficients",
        CoefficientsHeader,
        SCHEMA,
        "a file of coefficients",
        REPAIR,
        REPAIR,
        {"coefficients": Rows(np.float32, (VALUES,), beyond=0, largest=_LARGEST)},
    )

    def rows(self, start: int = 0, count: int | None = None) -> np.ndarray:
        """Coefficients, float32 (count, 262).

        Raises:
            IndexError: The range is not inside the clip.
        """
        return self._rows("coefficients", *self._range("frames", start, count, len(self)))

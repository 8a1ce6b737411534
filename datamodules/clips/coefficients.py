# SPDX-License-Identifier: Apache-2.0
"""3DMM coefficients of the faces of a clip, one row a frame: `<speaker>/<clip>.coefficients`, beside the clip.

A file is in the safetensors format under another suffix, so that it is never taken for a clip. Its tensor, T frames::

    coefficients  float32 (T, 262)   0:80 identity, 80:144 expression, 144:224 texture, 224:227 angles, 227:254 light,
                                     254:257 translation, 257:262 crop: width, height, scale, x, y

The crop says how the network that regressed the rest was given the face (`face_crop` of
models/pretrained/face_coefficients.py). The metadata has one key, `coefficients`: a `CoefficientsHeader` as JSON with
sorted keys.

What a method regresses from the frames of the source when it dubs them lies in `<clip>.source.coefficients`.
"""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lipsync_bench.datamodules.clips.clip import Clip, ClipHeader
from lipsync_bench.datamodules.clips.tensor_file import FileKind, Rows
from lipsync_bench.datamodules.clips.tensor_reader import TensorReader
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.files.disk import write_tensors

SCHEMA = "1"
SUFFIX = ".coefficients"
VALUES = 262
REPAIR = "Run: bench coefficients --root ROOT"
SOURCE = "source"
"""In the place of a track's digest: regressed from the frames of the source."""
_LARGEST = 1e6
_log = logging.getLogger(__name__)

__all__ = [
    "REPAIR",
    "SCHEMA",
    "SOURCE",
    "SUFFIX",
    "VALUES",
    "Coefficients",
    "CoefficientsHeader",
    "coefficients_path",
    "kept_coefficients",
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


def kept_coefficients(clip: Clip, network: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The coefficients of a clip's source, float32 (T, 262): those that lie beside it, else made and left there.

    Args:
        clip: The clip.
        network: What regresses them, as in `CoefficientsHeader`.
        make: Regresses them.

    Raises:
        ValueError: As `write_coefficients`.
    """
    path = clip.path.with_suffix(f".{SOURCE}{SUFFIX}")
    header = CoefficientsHeader.of(clip.header, SOURCE, network)
    if path.is_file():
        try:
            with Coefficients(path, read="file") as kept:
                if kept.header == header:
                    return kept.rows()
        except ClipError as error:
            _log.warning("%s; they are made anew", error)
    rows = make()
    try:
        write_coefficients(path, header, rows)
    except OSError as error:  # a folder that may only be read
        _log.warning("%s: could not be left there (%s); another run makes them again", path, error.strerror or error)
    return rows

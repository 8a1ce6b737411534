# SPDX-License-Identifier: Apache-2.0
"""The faces of one recipe beside a clip, at the size that its network sees: `<speaker>/<clip>.<digest>.track`.

A file is in the safetensors format under another suffix, so that it is never taken for a clip. Tensors, T frames::

    frames   uint8  (bytes,)   the T faces, end to end, as the codec says
    offsets  int64  (T + 1,)   face t is frames[offsets[t]:offsets[t + 1]]

The metadata has one key, `track`: a `TrackHeader` as JSON with sorted keys.

Codecs::

    jpeg     JPEG of quality 95 with all its colours, as clips are stored
    jpeg420  JPEG of quality 97, colours halved in both directions, as in most videos
    raw      H x W x 3 values

Against `jpeg`, `jpeg420` takes as many bytes, is nearer to the face in brightness, less near in colour, and is decoded
in 0.88, 0.84 and 0.78 of the time: half as many blocks, and from quality 96 on libjpeg-turbo takes the exact
transform to encode.
"""

import dataclasses
import json
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg

from lipsync_bench.datamodules.clips.clip import ClipHeader
from lipsync_bench.datamodules.clips.tensor_file import FileKind, Rows
from lipsync_bench.datamodules.clips.tensor_reader import TensorReader
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.files.disk import atomic_path
from lipsync_bench.datamodules.limits import MAX_CROP_PX
from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.recipes.values import Codec

SCHEMA = "1"
JPEG_QUALITY = 95  # of clips
_JPEG = {"jpeg": (JPEG_QUALITY, "444"), "jpeg420": (97, "420")}  # quality, subsampling of colours
_REPAIR = "Run: bench prepare --for METHOD (it replaces broken tracks)"

__all__ = [
    "JPEG_QUALITY",
    "SCHEMA",
    "Track",
    "TrackHeader",
    "decode_face",
    "encode_face",
    "track_path",
    "track_writer",
    "write_track",
]


def track_path(clip_path: Path, digest: str) -> Path:
    """Where the faces of a recipe are, by its `track_digest`: beside the clip, under the same name."""
    return Path(clip_path).with_suffix(f".{digest}.track")


@dataclasses.dataclass(frozen=True)
class TrackHeader:
    """Which clip the faces belong to and how they were cut.

    Args:
        id: Of the clip.
        source_sha256: As in the clip's header.
        clip_settings: The clip's `settings`: other ones may have found another face, or it elsewhere.
        detector_version: The clip's.
        track: `Recipe.track_key()`: the crop rule, the size and the way of resizing, as JSON.
        width, height: Of the faces, pixels.
        codec: How they are stored.
        frames: T.
        schema: Version of this file format.
        versions: Of what found and cut the faces beyond the clip's own detector, as JSON; to be read by people.
    """

    id: str
    source_sha256: str
    clip_settings: str
    detector_version: str
    track: str
    width: int
    height: int
    codec: Codec
    frames: int
    schema: str = SCHEMA
    versions: str = ""

    @classmethod
    def of(cls, clip: ClipHeader, recipe: Recipe, codec: Codec = "jpeg", versions: str = "") -> "TrackHeader":
        """The header of a recipe's track of a clip."""
        height, width = recipe.size_hw
        return cls(
            *(*clip.preparation, recipe.track_key(), width, height, codec),
            frames=clip.frames,
            versions=versions,
        )

    def belongs_to(self, clip: ClipHeader) -> bool:
        """Whether the faces are those of this clip as it is now."""
        own = (self.id, self.source_sha256, self.clip_settings, self.detector_version, self.frames)
        return own == (*clip.preparation, clip.frames)


def encode_face(face: np.ndarray, codec: Codec) -> bytes:
    """A face, uint8 RGB (H, W, 3), as it is stored."""
    face = np.ascontiguousarray(face)
    if codec == "raw":
        return face.tobytes()
    quality, colours = _JPEG[codec]
    return bytes(simplejpeg.encode_jpeg(face, quality, colorspace="RGB", colorsubsampling=colours, fastdct=False))


def decode_face(stored: bytes, codec: Codec, out: np.ndarray) -> None:
    """Decode a stored face into `out`, uint8 RGB (H, W, 3).

    Raises:
        ValueError: It is broken or of another size.
    """
    if codec == "raw":
        out[:] = np.frombuffer(stored, np.uint8).reshape(out.shape)
        return
    height, width, _ = simplejpeg.decode_jpeg(stored, "RGB", buffer=out).shape  # a larger one is a ValueError
    if (height, width) != out.shape[:2]:
        raise ValueError(f"{width} x {height} pixels, expected {out.shape[1]} x {out.shape[0]}")


def _head(header: TrackHeader, stored: int) -> bytes:
    """The head of the file for `stored` bytes of faces, equally long for any number."""

    def head(count: int) -> bytes:
        end = count + 8 * (header.frames + 1)
        content = {
            "__metadata__": {"track": json.dumps(dataclasses.asdict(header), sort_keys=True)},
            "frames": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]},
            "offsets": {"dtype": "I64", "shape": [header.frames + 1], "data_offsets": [count, end]},
        }
        return json.dumps(content).encode()

    length = -(-len(head(1 << 62)) // 8) * 8
    return struct.pack("<Q", length) + head(stored).ljust(length)


@contextmanager
def track_writer(path: Path, header: TrackHeader) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a track face by face, atomically; the folder is created, and memory does not grow with the track.

    Args:
        path: The file, see `track_path`; an existing one is replaced.
        header: Its `frames`, `width` and `height` must be those of the faces.

    Returns:
        What takes the next face, uint8 RGB (H, W, 3).

    Raises:
        ValueError: A face has another size or type, or there are more or fewer than the header says.
    """
    offsets, shape = [0], (header.height, header.width, 3)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_head(header, 0))

        def add(face: np.ndarray) -> None:
            if face.shape != shape or face.dtype != np.uint8:
                raise ValueError(f"{header.id}: a face is {face.dtype} {face.shape}, expected uint8 {shape}")
            offsets.append(offsets[-1] + file.write(encode_face(face, header.codec)))

        yield add
        if len(offsets) != header.frames + 1:
            raise ValueError(
                f"{header.id}: {len(offsets) - 1} faces, header.frames is {header.frames}. Expected the same number. "
                "Give the faces of the whole clip"
            )
        file.write(np.array(offsets, np.int64).tobytes())
        file.seek(0)
        file.write(_head(header, offsets[-1]))


def write_track(path: Path, header: TrackHeader, faces: Iterable[np.ndarray]) -> None:
    """Write all faces of a track; as `track_writer`."""
    with track_writer(path, header) as add:
        for face in faces:
            add(face)


class Track(TensorReader[TrackHeader]):
    """Lazy reader of one track, see `TensorReader`."""

    kind = FileKind(
        "track",
        "track",
        TrackHeader,
        SCHEMA,
        "the faces of a recipe",
        _REPAIR,
        _REPAIR,
        {"frames": Rows(np.uint8), "offsets": Rows(np.int64, beyond=1)},
    )

    def _check(self, header: TrackHeader) -> None:
        if not 1 <= min(header.width, header.height) <= max(header.width, header.height) <= MAX_CROP_PX:
            raise ClipError(
                f"{self.path}: faces of {header.width} x {header.height} pixels. Expected 1 to {MAX_CROP_PX}. {_REPAIR}"
            )

    def faces(self, start: int = 0, count: int | None = None) -> np.ndarray:
        """The faces, uint8 RGB (count, H, W, 3).

        Raises:
            IndexError: The range is not inside the clip.
            ClipError: One is broken or of another size.
        """
        stored, header = self.stored(start, count), self.header
        out = np.empty((len(stored), header.height, header.width, 3), np.uint8)
        for index, (data, face) in enumerate(zip(stored, out, strict=True), start):
            try:
                decode_face(data, header.codec, face)
            except ValueError as error:
                raise ClipError(f"{self.path}: face {index} cannot be decoded ({error}). {_REPAIR}") from error
        return out

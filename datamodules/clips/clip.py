# SPDX-License-Identifier: Apache-2.0
"""A prepared clip: one face track at 25 frames a second with its audio, in one safetensors file, read in parts.

Tensors of a file (T frames, M mel columns, S audio samples)::

    frames     uint8   (bytes,)       the T crops as JPEG files, end to end
    offsets    int64   (T + 1,)       crop t is frames[offsets[t]:offsets[t + 1]]
    mel        float32 (M, 80)        80 columns a second; stored by column, so that a window is contiguous
    wav        int16   (S,)           mono, 16 kHz
    boxes      float32 (T, 4)         crop rectangle x1 y1 x2 y2 in source pixels
    landmarks  float32 (T, 68, 2)     68 points, crop coordinates (0..1 inside the crop)
    mesh       float16 (T, 478, 3)    face mesh, crop coordinates; z in the units of x

The metadata has one key, `clip`: a `ClipHeader` as JSON with sorted keys (one key, because the order of several is not
defined and the same input must give the same bytes).
"""

import dataclasses
import itertools
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, overload

import cv2
import numpy as np
import simplejpeg

from lipsync_bench.datamodules.clips.tensor_file import FileKind, StoredTensor, open_file, read_head
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.faces.geometry import CONTOUR, Geometry
from lipsync_bench.datamodules.files.disk import write_tensors
from lipsync_bench.datamodules.limits import MAX_CROP_PX

SCHEMA = "1"
MESH_POINTS = 478
LANDMARKS = 68
_MEL_BANDS = 80
_MEL_WINDOW = 16
_KINDS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "frames": (np.uint8, ()),
    "offsets": (np.int64, ()),
    "mel": (np.float32, (_MEL_BANDS,)),
    "wav": (np.int16, ()),
    "boxes": (np.float32, (4,)),
    "landmarks": (np.float32, (LANDMARKS, 2)),
    "mesh": (np.float16, (MESH_POINTS, 3)),
}
_LARGEST = {"mel": 4.0, "boxes": 1e6, "landmarks": 100.0, "mesh": 100.0}  # magnitudes; a mel lies in [-4, 4]
_REPAIR = "Run: bench prepare again (it replaces broken clips; with --overwrite all clips)"

__all__ = [
    "LANDMARKS",
    "MESH_POINTS",
    "SCHEMA",
    "Clip",
    "ClipHeader",
    "read_header",
    "write_clip",
]


@dataclasses.dataclass(frozen=True)
class ClipHeader:
    """What a clip is and how it was made.

    Args:
        id: `<speaker>/<name>`, also the file's path below the prepared folder.
        speaker: First part of the id.
        source: The video's path relative to the source root, with forward slashes.
        source_sha256: SHA-256 of the video file; if the audio is a separate file, followed by `+` and that file's.
        source_fps: Nominal frames a second of the source, before it was resampled to 25.
        source_width: Pixels, upright.
        source_height: Pixels, upright.
        detector: `mediapipe` or `dlib`.
        detector_version: Package version and model.
        crop_rule: `mesh` or `detector`.
        frames: T.
        detected: Number of the T frames in which the face was found; it is interpolated in the others.
        schema: Version of this file format.
        settings: The remaining settings of the preparation as JSON; a finished clip is kept only if they are the same.
    """

    id: str
    speaker: str
    source: str
    source_sha256: str
    source_fps: float
    source_width: int
    source_height: int
    detector: str
    detector_version: str
    crop_rule: str
    frames: int
    detected: int
    schema: str = SCHEMA
    settings: str = ""


@dataclasses.dataclass(frozen=True)
class _Layout:
    header: ClipHeader
    tensors: dict[str, StoredTensor]


_KIND = FileKind(
    "clip", "clip", ClipHeader, SCHEMA, "a prepared clip", _REPAIR, "Run: bench prepare --overwrite", _KINDS
)


def _parse_layout(path: Path, handle: int) -> _Layout:
    """Read and check the head of an open file without reading the data."""
    header, tensors = read_head(path, handle, _KIND)
    for name in (header.id, header.source):  # paths are made from them
        if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts or not name.strip("./"):
            raise ClipError(f"{path}: the clip calls itself or its source {name!r}. Expected a path below. {_REPAIR}")
    _check_layout(path, header, tensors)
    return _Layout(header, tensors)


def _check_layout(path: Path, header: ClipHeader, tensors: dict[str, StoredTensor]) -> None:
    count = header.frames
    if count < 1 or header.detected > count:
        raise ClipError(f"{path}: {count} frames, {header.detected} detected. Expected 1 or more. {_REPAIR}")
    for name, (dtype, row) in _KINDS.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype is not dtype or not tensor.shape or tensor.shape[1:] != row:
            raise ClipError(
                f"{path}: tensor {name} is {tensor}, expected {np.dtype(dtype)} with rows of shape {row}. {_REPAIR}"
            )
    expected = {"offsets": count + 1, "boxes": count, "landmarks": count, "mesh": count}
    for name, rows in expected.items():
        if tensors[name].shape[0] != rows:
            raise ClipError(f"{path}: tensor {name} has {tensors[name].shape[0]} rows, expected {rows}. {_REPAIR}")


def write_clip(
    path: Path,
    header: ClipHeader,
    *,
    jpegs: Sequence[bytes],
    mel: np.ndarray,
    wav: np.ndarray,
    boxes: np.ndarray,
    landmarks: np.ndarray,
    mesh: np.ndarray,
) -> None:
    """Write one clip, atomically; the folder is created.

    Args:
        path: The file; an existing one is replaced.
        header: The header; its `frames` must be the number of JPEGs.
        jpegs: T JPEG files (RGB crops).
        mel: float32 (M, 80).
        wav: int16 (S,), 16 kHz.
        boxes: (T, 4), x1 y1 x2 y2 in source pixels.
        landmarks: (T, 68, 2), crop coordinates 0..1.
        mesh: (T, 478, 3), crop coordinates 0..1.

    Raises:
        ValueError: A shape or type does not fit.
    """
    count = len(jpegs)
    shapes = {
        "mel": (mel.shape, (len(mel), _MEL_BANDS)),
        "wav": (wav.shape, (wav.size,)),
        "boxes": (boxes.shape, (count, 4)),
        "landmarks": (landmarks.shape, (count, LANDMARKS, 2)),
        "mesh": (mesh.shape, (count, MESH_POINTS, 3)),
    }
    for name, (found, expected) in shapes.items():
        if found != expected:
            raise ValueError(f"{header.id}: {name} has shape {found}, expected {expected}")
    if header.frames != count or count == 0:
        raise ValueError(
            f"{header.id}: {count} JPEGs, header.frames is {header.frames}; expected the same number, at least 1"
        )
    if wav.dtype != np.int16:
        raise ValueError(f"{header.id}: wav is {wav.dtype}, expected int16 (use audio.to_int16)")
    tensors: dict[str, np.ndarray] = {
        "frames": np.frombuffer(b"".join(jpegs), np.uint8),
        "offsets": np.cumsum([0, *map(len, jpegs)], dtype=np.int64),
        "mel": np.ascontiguousarray(mel, np.float32),
        "wav": np.ascontiguousarray(wav),
        "boxes": np.ascontiguousarray(boxes, np.float32),
        "landmarks": np.ascontiguousarray(landmarks, np.float32),
        "mesh": np.ascontiguousarray(mesh, np.float16),
    }
    write_tensors(path, tensors, {"clip": json.dumps(dataclasses.asdict(header), sort_keys=True)})


def read_header(path: Path) -> ClipHeader:
    """The header of a clip; reads about a kilobyte.

    Raises:
        FileNotFoundError: No such file.
        ClipError: The file is cut short, of another version, or not a clip.
    """
    handle = open_file(path)
    try:
        return _parse_layout(Path(path), handle).header
    finally:
        os.close(handle)


class Clip:
    """Lazy reader of one clip: every call reads only the bytes it needs.

    The file is opened at the first access, not at construction, so a clip can be pickled to a worker process (only the
    path is pickled). Reading keeps no position, so a copy in a forked process is safe too.

    Args:
        path: A file written by `write_clip`.
        read: `mmap` maps the file (fast on local disks); `file` reads it with ordinary calls (for NFS and Lustre, where
            mapping is slow).

    Raises:
        FileNotFoundError: At first access: no such file.
        ClipError: At first access: broken or of another version. Later: a JPEG cannot be decoded, a number is not
            finite or out of range, or the file was cut short.
    """

    def __init__(self, path: Path, read: Literal["mmap", "file"] = "mmap") -> None:
        if read not in ("mmap", "file"):
            raise ValueError(f"read={read!r}, expected 'mmap' or 'file'")
        self.path = Path(path)
        self.read = read
        self._handle: int | None = None
        self._map: mmap.mmap | None = None
        self._parsed: _Layout | None = None

    def __enter__(self) -> "Clip":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> tuple[Path, Literal["mmap", "file"]]:
        return self.path, self.read

    def __setstate__(self, state: tuple[Path, Literal["mmap", "file"]]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __len__(self) -> int:
        return self.header.frames

    @property
    def header(self) -> ClipHeader:
        """The clip's header, read once."""
        return self._layout.header

    @property
    def mel_columns(self) -> int:
        """Number of mel columns, M; 80 are one second."""
        return self._layout.tensors["mel"].shape[0]

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        if getattr(self, "_map", None) is not None:
            self._map.close()  # type: ignore[union-attr]
            self._map = None
        if getattr(self, "_handle", None) is not None:
            os.close(self._handle)  # type: ignore[arg-type]
            self._handle = None

    def jpegs(self, start: int = 0, count: int | None = None) -> list[bytes]:
        """The JPEG files of `count` frames from `start` (to the end if None).

        Raises:
            IndexError: The range is not inside the clip.
        """
        start, count = self._range("frames", start, count, len(self))
        offsets = self._rows("offsets", start, count + 1)
        stored = self._layout.tensors["frames"].shape[0]
        if (np.diff(offsets) < 0).any() or not 0 <= offsets[0] <= offsets[-1] <= stored:
            raise ClipError(f"{self.path}: its JPEG files are at {offsets[:3]} ... {offsets[-1]}. {_REPAIR}")
        data = self._rows("frames", int(offsets[0]), int(offsets[-1] - offsets[0]))
        ends = offsets - offsets[0]
        return [data[a:b].tobytes() for a, b in itertools.pairwise(ends)]

    @overload
    def frames(self, start: int = 0, count: int | None = None, *, size_hw: tuple[int, int]) -> np.ndarray: ...

    @overload
    def frames(
        self, start: int = 0, count: int | None = None, size_hw: tuple[int, int] | None = None
    ) -> np.ndarray | list[np.ndarray]: ...

    def frames(
        self, start: int = 0, count: int | None = None, size_hw: tuple[int, int] | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Crops, uint8 RGB (count, H, W, 3).

        Args:
            start: First frame.
            count: How many; None to the end.
            size_hw: Resize every crop to it (OpenCV, bilinear). None keeps the sizes: one array if they are equal, else
                a list of (H, W, 3) arrays.

        Raises:
            IndexError: The range is not inside the clip.
            ClipError: A JPEG is broken.
        """
        images = []
        for index, jpeg in enumerate(self.jpegs(start, count), start):
            try:
                if max(simplejpeg.decode_jpeg_header(jpeg)[:2]) > MAX_CROP_PX:
                    raise ValueError(f"a side of more than {MAX_CROP_PX} pixels")
                image = simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
            except ValueError as error:
                raise ClipError(f"{self.path}: frame {index} cannot be decoded ({error}). {_REPAIR}") from error
            if size_hw is not None and image.shape[:2] != tuple(size_hw):
                image = cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)
            images.append(image)
        if size_hw is not None and not images:
            return np.empty((0, *size_hw, 3), np.uint8)
        return np.stack(images) if len({image.shape for image in images}) == 1 else images

    def mel(self) -> np.ndarray:
        """The whole mel spectrogram, float32 (80, M)."""
        return np.ascontiguousarray(self._rows("mel", 0, self.mel_columns).T)

    def mel_window(self, start: int) -> np.ndarray:
        """16 mel columns from `start`, float32 (80, 16).

        Raises:
            IndexError: The window is not inside the clip.
        """
        self._range("mel columns", start, _MEL_WINDOW, self.mel_columns)
        return np.ascontiguousarray(self._rows("mel", start, _MEL_WINDOW).T)

    def wav(self) -> np.ndarray:
        """The audio, int16 (S,), mono, 16 kHz."""
        return self._rows("wav", 0, self._layout.tensors["wav"].shape[0])

    def boxes(self) -> np.ndarray:
        """Crop rectangles, float32 (T, 4), x1 y1 x2 y2 in source pixels."""
        return self._rows("boxes", 0, len(self))

    def landmarks(self) -> np.ndarray:
        """68 points, float32 (T, 68, 2), crop coordinates (0..1 inside the crop)."""
        return self._rows("landmarks", 0, len(self))

    def mesh(self) -> np.ndarray:
        """Face mesh, float32 (T, 478, 3) (stored in half precision), crop coordinates."""
        return self._rows("mesh", 0, len(self)).astype(np.float32)

    def geometry(self, boxes: Mapping[str, np.ndarray] | None = None) -> Geometry:
        """Where the face is in each frame, in source pixels.

        Args:
            boxes: Boxes of further detectors, float32 (T, 4) each, by the detector's name.
        """
        header, crops = self.header, self.boxes()
        corner, size = crops[:, None, :2], (crops[:, 2:] - crops[:, :2])[:, None]
        mesh = self.mesh()[..., :2] * size + corner
        tight = np.concatenate([mesh.min(axis=1), mesh.max(axis=1)], axis=1)
        found = {"mediapipe": tight} if header.detector == "mediapipe" else {}
        by_detector = header.crop_rule == "detector"
        if by_detector:
            found = {header.detector: crops}
        return Geometry(
            (header.source_height, header.source_width),
            np.ones(len(self), bool),
            tight,
            mesh[:, list(CONTOUR)],
            self.landmarks() * size + corner,
            {**found, **(boxes or {})},
            None if by_detector else crops,
        )

    @property
    def _layout(self) -> _Layout:
        if self._handle is None:
            self._open()
        assert self._parsed is not None
        return self._parsed

    def _open(self) -> None:
        self._handle = open_file(self.path)
        try:
            self._parsed = _parse_layout(self.path, self._handle)
            if self.read == "mmap":
                self._map = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)
        except BaseException:
            self.close()
            raise

    def _range(self, what: str, start: int, count: int | None, available: int) -> tuple[int, int]:
        count = available - start if count is None else count
        if start < 0 or count < 0 or start + count > available:
            raise IndexError(
                f"{self.path}: {what} {start}..{start + count - 1} asked for, the clip has 0..{available - 1}"
            )
        return start, count

    def _rows(self, name: str, start: int, count: int) -> np.ndarray:
        """A copy of `count` rows of a tensor; their range has been checked."""
        tensor = self._layout.tensors[name]
        first, length = tensor.start + start * tensor.row_bytes, count * tensor.row_bytes
        assert self._handle is not None
        if self._map is None:
            data = os.pread(self._handle, length, first)
        elif first + length <= os.fstat(self._handle).st_size:
            data = self._map[first : first + length]
        else:  # cut short since it was mapped; reading beyond its end would kill the process
            data = b""
        if len(data) != length or start < 0:
            raise ClipError(f"{self.path}: {name} ends early: {len(data)} bytes, expected {length}. {_REPAIR}")
        rows = np.frombuffer(bytearray(data), tensor.dtype).reshape(count, *tensor.shape[1:])
        largest = _LARGEST.get(name)
        if largest is not None and rows.size and not -largest <= rows.min() <= rows.max() <= largest:
            raise ClipError(
                f"{self.path}: {name} {start}..{start + count - 1} has values from {rows.min():g} to {rows.max():g}. "
                f"Expected numbers between {-largest:g} and {largest:g}. {_REPAIR}, or move the file away"
            )
        return rows

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
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import cv2
import numpy as np
import simplejpeg

from lipsync_bench.datamodules.clips.tensor_file import FileKind, Rows
from lipsync_bench.datamodules.clips.tensor_reader import TensorReader
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.faces.geometry import CONTOUR, Geometry
from lipsync_bench.datamodules.files.disk import write_tensors
from lipsync_bench.datamodules.limits import MAX_CROP_PX

if TYPE_CHECKING:
    from lipsync_bench.datamodules.recipes.values import MelPadding

SCHEMA = "1"
MESH_POINTS = 478
LANDMARKS = 68
_MEL_BANDS = 80
_MEL_WINDOW = 16
_PADDED = 2  # mel columns at each end that see what the audio is padded with
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

    @property
    def preparation(self) -> tuple[str, str, str, str]:
        """What files beside the clip hold to tell whether they were made for it as it is now."""
        return self.id, self.source_sha256, self.settings, self.detector_version


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
    with Clip(path, "file") as clip:
        return clip.header


class Clip(TensorReader[ClipHeader]):
    """Lazy reader of one clip, see `TensorReader`."""

    kind = FileKind(
        "clip",
        "clip",
        ClipHeader,
        SCHEMA,
        "a prepared clip",
        _REPAIR,
        "Run: bench prepare --overwrite",
        {
            "frames": Rows(np.uint8),
            "offsets": Rows(np.int64, beyond=1),
            "mel": Rows(np.float32, (_MEL_BANDS,), largest=4.0),
            "wav": Rows(np.int16),
            "boxes": Rows(np.float32, (4,), 0, largest=1e6),
            "landmarks": Rows(np.float32, (LANDMARKS, 2), 0, largest=100.0),
            "mesh": Rows(np.float16, (MESH_POINTS, 3), 0, largest=100.0),
        },
    )

    _edges: dict[int, np.ndarray] | None = None

    def _check(self, header: ClipHeader) -> None:
        self._edges = None
        for name in (header.id, header.source):  # paths are made from them
            path = Path(name)
            if path.is_absolute() or ".." in path.parts or not name.strip("./"):
                raise ClipError(
                    f"{self.path}: the clip calls itself or its source {name!r}. Expected a path below. {_REPAIR}"
                )
        if header.detected > header.frames:
            raise ClipError(
                f"{self.path}: {header.frames} frames, {header.detected} detected. Expected no more. {_REPAIR}"
            )

    @property
    def mel_columns(self) -> int:
        """Number of mel columns, M; 80 are one second."""
        return self._opened()[1]["mel"].shape[0]

    def jpegs(self, start: int = 0, count: int | None = None) -> list[bytes]:
        """The JPEG files of `count` frames from `start` (to the end if None).

        Raises:
            IndexError: The range is not inside the clip.
        """
        return self.stored(start, count)

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

    def mel(self, padding: "MelPadding" = "reflect") -> np.ndarray:
        """The whole mel spectrogram, float32 (80, M); see `mel_window`."""
        return self.mel_window(0, padding, self.mel_columns)

    def mel_window(self, start: int, padding: "MelPadding" = "reflect", columns: int = _MEL_WINDOW) -> np.ndarray:
        """`columns` mel columns from `start`, float32 (80, columns).

        With `constant` padding the first two and the last two of the clip are computed from its audio, whose samples
        were rounded to 16 bits after the stored columns had been computed.

        Raises:
            IndexError: The window is not inside the clip.
            ClipError: `constant`, and the clip's audio is not as long as its mel.
        """
        self._range("mel columns", start, columns, self.mel_columns)
        rows = self._rows("mel", start, columns)
        if padding == "constant" and (start < _PADDED or start + columns > self.mel_columns - _PADDED):
            for column, values in self._constant_edges().items():
                if start <= column < start + columns:
                    rows[column - start] = values
        return np.ascontiguousarray(rows.T)

    def _constant_edges(self) -> dict[int, np.ndarray]:
        """The columns that padding changes, as `constant` padding makes them: float32 (80,) by number."""
        if self._edges is None:
            from lipsync_bench.datamodules.media.audio import FFT_SAMPLES, HOP_SAMPLES, mel_spectrogram, to_float

            samples, columns = self._opened()[1]["wav"].shape[0], self.mel_columns
            if columns != 1 + samples // HOP_SAMPLES:
                raise ClipError(
                    f"{self.path}: {columns} mel columns of {samples} audio samples. Expected one for every "
                    f"{HOP_SAMPLES} and one more. {_REPAIR}"
                )
            # The last ones reach over 600 samples before the end's padding, and pre-emphasis over one more.
            tail = max(0, (columns - _PADDED) * HOP_SAMPLES - FFT_SAMPLES + HOP_SAMPLES)
            first, last = (
                mel_spectrogram(to_float(self._rows("wav", start, count)), "constant").T
                for start, count in ((0, min(FFT_SAMPLES, samples)), (tail, samples - tail))
            )
            self._edges = dict(enumerate(last[-_PADDED:], columns - _PADDED)) | dict(enumerate(first[:_PADDED]))
        return self._edges

    def wav(self) -> np.ndarray:
        """The audio, int16 (S,), mono, 16 kHz."""
        return self._rows("wav", 0, self._opened()[1]["wav"].shape[0])

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

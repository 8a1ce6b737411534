# SPDX-License-Identifier: Apache-2.0
"""What the first stage of HyperLips leaves beside a clip for the second: `<speaker>/<clip>.base`, one file a clip.

The second stage learns to sharpen the faces that the trained base network makes; these are generated once and kept.
A file is in the safetensors format under another suffix, so that it is never taken for a clip. Tensors, T frames::

    frames       uint8   (bytes,)        the T generated faces as JPEG files of S x S pixels, end to end
    offsets      int64   (T + 1,)        face t is frames[offsets[t]:offsets[t + 1]]
    sketch       uint8   (T, 2048)       drawing of the generated face, 128 x 128, one bit a pixel, row by row
    found        bool    (T,)            whether Face Mesh saw a face in the generated one; else its sketch is empty
    lip_outline  float32 (T, 20, 2)      ring around the true frame's lips, crop coordinates (0..1 inside the crop)

The metadata has one entry, `base_frames`: a `BaseFramesHeader` as JSON with sorted keys.

Differs: the published preparation pastes the generated face into its frame, encodes the video with DIVX, finds the face
again and draws the sketch at the size it has there. Here the network's own output is kept, which is what the second
stage is given at inference, and the sketch is drawn at 128 x 128, as at inference.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg

from lipsync_bench.datamodules.clips.clip import ClipHeader
from lipsync_bench.datamodules.clips.tensor_file import FileKind, Rows
from lipsync_bench.datamodules.clips.tensor_reader import TensorReader
from lipsync_bench.datamodules.clips.track import encode_face
from lipsync_bench.datamodules.errors import ClipError
from lipsync_bench.datamodules.files.disk import write_tensors
from lipsync_bench.datamodules.limits import MAX_CROP_PX
from lipsync_bench.models.hyperlips.hr.sketch import BOTTLENECK_PX, LIP_OUTLINE

MeshOrder = Literal["rgb", "bgr"]
SCHEMA = "1"
SUFFIX = ".base"
REPAIR = "Run: bench base-frames --checkpoint BASE.ckpt --root ROOT"
_SKETCH_SHAPE = (BOTTLENECK_PX, BOTTLENECK_PX)
_OUTLINE_SHAPE = (len(LIP_OUTLINE), 2)

__all__ = [
    "REPAIR",
    "SCHEMA",
    "SUFFIX",
    "BaseFrames",
    "BaseFramesHeader",
    "MeshOrder",
    "base_frames_path",
    "write_base_frames",
]


@dataclasses.dataclass(frozen=True)
class BaseFramesHeader:
    """Which clip the faces belong to and what made them.

    Args:
        id: of the clip.
        source_sha256: as in the clip's header.
        clip_settings: the clip's `settings`: another crop rule gives other crops from the same source.
        checkpoint_sha256: of the base network's checkpoint file.
        size_px: side of the generated faces, S.
        mesh_order: channel order of the images Face Mesh saw, `bgr` as published or `rgb`.
        frames: T.
        schema: version of this file format.
        detector_version: the clip's: another detector gives other crops. Files of earlier versions do not tell it.
        crop: the rule that cut the faces, as `CropRule.text`. Files of earlier versions do not tell it: the clip's own.
    """

    id: str
    source_sha256: str
    clip_settings: str
    checkpoint_sha256: str
    size_px: int
    mesh_order: MeshOrder
    frames: int
    schema: str = SCHEMA
    detector_version: str = ""
    crop: str = ""

    @classmethod
    def of(
        cls,
        clip: ClipHeader,
        checkpoint_sha256: str,
        size_px: int = BOTTLENECK_PX,
        mesh_order: MeshOrder = "rgb",
        crop: str = "",
    ) -> "BaseFramesHeader":
        """The header for faces generated from a clip."""
        return cls(
            *(clip.id, clip.source_sha256, clip.settings, checkpoint_sha256, size_px, mesh_order),
            frames=clip.frames,
            detector_version=clip.detector_version,
            crop=crop,
        )

    def belongs_to(self, clip: ClipHeader) -> bool:
        """Whether the faces were made from this clip as it is now."""
        own = (self.id, self.source_sha256, self.clip_settings, self.frames)
        same = own == (clip.id, clip.source_sha256, clip.settings, clip.frames)
        return same and self.detector_version in ("", clip.detector_version)


def base_frames_path(clip_path: Path) -> Path:
    """Where the generated faces of a clip file are: beside it, under the same name and another suffix."""
    return Path(clip_path).with_suffix(SUFFIX)


def write_base_frames(
    path: Path,
    header: BaseFramesHeader,
    *,
    frames: Sequence[np.ndarray],
    sketches: np.ndarray,
    found: np.ndarray,
    lip_outlines: np.ndarray,
) -> None:
    """Write the generated faces of one clip, atomically; the folder is made.

    Args:
        path: the file, see `base_frames_path`; an existing one is replaced.
        header: its `frames` and `size_px` have to be those of the images.
        frames: T generated faces, uint8 RGB (S, S, 3); kept as JPEG of quality 95 without subsampling of colours.
        sketches: uint8 (T, 128, 128), 0 or 255; those of frames without a mesh are stored empty.
        found: bool (T,).
        lip_outlines: (T, 20, 2), crop coordinates 0..1.

    Raises:
        ValueError: a shape, type or value does not fit.
    """
    count, side = header.frames, header.size_px
    if count < 1 or len(frames) != count:
        raise ValueError(
            f"{header.id}: {len(frames)} faces, header.frames is {count}. Expected the same number, at least 1. "
            "Give the faces of the whole clip."
        )
    given = {
        "frames": ({(image.shape, image.dtype) for image in frames}, {((side, side, 3), np.dtype(np.uint8))}),
        "sketches": ((sketches.shape, sketches.dtype), ((count, *_SKETCH_SHAPE), np.uint8)),
        "found": ((found.shape, found.dtype), ((count,), np.bool_)),
        "lip_outlines": (lip_outlines.shape, (count, *_OUTLINE_SHAPE)),
    }
    for name, (have, want) in given.items():
        if have != want:
            raise ValueError(f"{header.id}: {name} are {have}, expected {want}. Correct the argument {name}.")
    if not np.isin(sketches, (0, 255)).all():
        raise ValueError(f"{header.id}: sketches with grey pixels. Expected 0 and 255. Pass what draw_sketch returns.")
    jpegs = [encode_face(image, "jpeg") for image in frames]
    tensors: dict[str, np.ndarray] = {
        "frames": np.frombuffer(b"".join(jpegs), np.uint8),
        "offsets": np.cumsum([0, *map(len, jpegs)], dtype=np.int64),
        "sketch": np.packbits((sketches > 0).reshape(count, -1) & found[:, None], axis=1),
        "found": np.ascontiguousarray(found),
        "lip_outline": np.ascontiguousarray(lip_outlines, np.float32),
    }
    write_tensors(path, tensors, {"base_frames": json.dumps(dataclasses.asdict(header), sort_keys=True)})


class BaseFrames(TensorReader[BaseFramesHeader]):
    """Lazy reader of the generated faces of one clip, see `TensorReader`.

    It is never mapped: a window has some 50 kB in four pieces.

    Args:
        path: a file written by `write_base_frames`.
    """

    kind = FileKind(
        "base-frame",
        "base_frames",
        BaseFramesHeader,
        SCHEMA,
        "a file of base frames",
        REPAIR,
        REPAIR,
        {
            "frames": Rows(np.uint8),
            "offsets": Rows(np.int64, beyond=1),
            "sketch": Rows(np.uint8, (math.prod(_SKETCH_SHAPE) // 8,), 0),
            "found": Rows(np.bool_, beyond=0),
            "lip_outline": Rows(np.float32, _OUTLINE_SHAPE, 0),
        },
    )

    def __init__(self, path: Path) -> None:
        super().__init__(path, "file")

    def _check(self, header: BaseFramesHeader) -> None:
        if not 1 <= header.size_px <= MAX_CROP_PX:
            raise ClipError(f"{self.path}: faces of {header.size_px} pixels. Expected 1 to {MAX_CROP_PX}. {REPAIR}")

    def faces(self, start: int = 0, count: int | None = None) -> np.ndarray:
        """The base network's faces, uint8 RGB (count, S, S, 3).

        Args:
            start: first frame.
            count: how many; None to the end. Both as in the methods below.

        Raises:
            IndexError: the range is not inside the clip.
            ClipError: a JPEG is broken or of another size.
        """
        side = self.header.size_px
        shape, images = (side, side, 3), []
        for index, jpeg in enumerate(self.stored(start, count), start):
            try:
                found = (*simplejpeg.decode_jpeg_header(jpeg)[:2], 3)
                image = simplejpeg.decode_jpeg(jpeg, colorspace="RGB") if found == shape else None
            except ValueError as error:
                raise ClipError(
                    f"{self.path}: face {index} cannot be decoded ({error}). Expected a JPEG file. {REPAIR}"
                ) from error
            if image is None:
                raise ClipError(f"{self.path}: face {index} is {found}, expected {shape}. {REPAIR}")
            images.append(image)
        return np.stack(images) if images else np.empty((0, *shape), np.uint8)

    def sketches(self, start: int = 0, count: int | None = None) -> np.ndarray:
        """Drawings of the generated faces, uint8 (count, 128, 128), 0 or 255; empty where no mesh was found."""
        start, count = self._range("frames", start, count, len(self))
        bits = np.unpackbits(self._rows("sketch", start, count), axis=1)
        return (bits * np.uint8(255)).reshape(count, *_SKETCH_SHAPE)

    def found(self, start: int = 0, count: int | None = None) -> np.ndarray:
        """Whether Face Mesh saw a face in the generated one, bool (count,)."""
        return self._rows("found", *self._range("frames", start, count, len(self)))

    def lip_outlines(self, start: int = 0, count: int | None = None) -> np.ndarray:
        """Ring around the lips of the true frame, float32 (count, 20, 2), crop coordinates."""
        return self._rows("lip_outline", *self._range("frames", start, count, len(self)))

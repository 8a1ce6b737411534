# SPDX-License-Identifier: Apache-2.0
"""The target video of a clip, read once in chunks, with everything that all candidates share."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.crops import cut
from lipsync_bench.datamodules.faces.detectors import hog_like_rectangle, landmarks68
from lipsync_bench.datamodules.files.disk import read_arrays, write_arrays
from lipsync_bench.datamodules.media.damage import Damage
from lipsync_bench.datamodules.media.video import FPS, read_frames
from lipsync_bench.evaluation.candidates import TargetChunk
from lipsync_bench.evaluation.target.regions import Regions, compare_crops, in_crop

_log = logging.getLogger(__name__)
CHUNK_FRAMES = 16  # frames of a video held at a time, if they are small;
CHUNK_BYTES = 16_000_000  # else as many as fit into this,
CHUNK_LEAST = 4  # but no fewer than this

__all__ = ["CHUNK_FRAMES", "TargetPart", "chunk_frames", "face_rectangles", "find_landmarks", "in_frame", "read_target"]


def chunk_frames(height: int, width: int) -> int:
    """How many frames of this size are held at a time: up to 720p memory does not grow with the resolution."""
    return min(CHUNK_FRAMES, max(CHUNK_LEAST, CHUNK_BYTES // (3 * height * width)))


def in_frame(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Points (N, K, 2) in crop coordinates 0..1 -> pixels of the frames, with the crops' boxes (N, 4)."""
    return boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])


def face_rectangles(mesh: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Where dlib's detector would put its rectangle in each frame: (N, 4) in frame pixels.

    Args:
        mesh: (N, 478, 3) the clip's stored mesh, crop coordinates 0..1.
        boxes: (N, 4) crop boxes in frame pixels.
    """
    points = in_frame(mesh[:, :, :2], boxes)
    extents = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return np.stack([hog_like_rectangle(extent) for extent in extents])


def find_landmarks(frames: Sequence[np.ndarray], rectangles: np.ndarray) -> np.ndarray:
    """dlib's 68 points of each frame, in its pixels: (N, 68, 2).

    Landmarks of target and prediction both start from the target's rectangle: a detector's own rectangles jump by
    several pixels, and a bad frame in which it finds no face would not count. The predictor runs on the whole frame,
    because a crop has another aspect ratio than the predictor was trained on.

    Args:
        frames: uint8 RGB (H, W, 3).
        rectangles: (N, 4) from `face_rectangles`.
    """
    return np.stack([landmarks68(frame, r) for frame, r in zip(frames, rectangles, strict=True)])


def _rectangles(clip: Clip, boxes: np.ndarray) -> np.ndarray:
    """Face rectangles (N, 4) in frame pixels; the mesh itself, 6 kB a frame, is not kept."""
    mesh = clip.mesh()
    parts = (slice(first, min(first + CHUNK_FRAMES, len(boxes))) for first in range(0, len(boxes), CHUNK_FRAMES))
    return np.concatenate([face_rectangles(mesh[part], boxes[part]) for part in parts])


@dataclass(frozen=True)
class TargetPart:
    """A chunk of the target as it is compared. A frame whose box is NaN has no crop in `crops`.

    Args:
        chunk: The frames and the candidates' other inputs.
        boxes: (N, 4) what is cut out, frame pixels.
        crops: The crops of the frames with a box.
        landmarks: (N, 68, 2) dlib's points in frame pixels.
        crop_landmarks: (N, 68, 2) those that are compared, in crop pixels, see `Regions.landmarks`.
        rectangles: (N, 4) face rectangles, frame pixels.
        lips: (N, 68, 2) the prepared clip's landmarks in crop pixels, which locate the mouth region.
        face_found: (N,) whether a face was found in the frame, see `Regions.face_found`.
        shared: What metrics computed from these frames, see `lipsync_bench.metrics.metric.View`.
    """

    chunk: TargetChunk
    boxes: np.ndarray
    crops: list[np.ndarray]
    landmarks: np.ndarray
    crop_landmarks: np.ndarray
    rectangles: np.ndarray
    lips: np.ndarray
    face_found: np.ndarray
    shared: dict[str, Any] = field(default_factory=dict)


class _Cache:
    """What detectors found in a target, stored for the next run: landmarks, boxes, whether there is a face.

    Args:
        path: The file.
        clip: The clip; a file of another video or detector is ignored.
        regions: The protocol's detectors.
    """

    SHAPES: ClassVar = {"landmarks": ((68, 2), "f"), "boxes": ((4,), "f"), "seen": ((), "b")}

    def __init__(self, path: Path, clip: Clip, regions: Regions) -> None:
        self._path = path
        self._facts = {"source": clip.header.source_sha256, "faces": regions.key(clip.header)}
        own = {"crop_landmarks": self.SHAPES["landmarks"]} if regions.protocol.landmarks == "crop" else {}
        self._shapes = {**self.SHAPES, **own}
        self._found: dict[str, list[np.ndarray]] = {name: [] for name in self._shapes}
        self.known = self._read() if path.is_file() else None

    def _read(self) -> dict[str, np.ndarray] | None:
        try:
            stored = read_arrays(self._path)
        except ValueError as error:
            _log.warning("%s It is computed again", error)
            return None
        fits = all(name in stored and np.array_equal(stored[name], value) for name, value in self._facts.items())
        whole = fits and all(name in stored for name in self._shapes) and self._of_frames(stored)
        return {name: stored[name] for name in self._shapes} if whole else None

    def _of_frames(self, stored: dict[str, np.ndarray]) -> bool:
        """Whether the arrays have a row for each frame, as `add` takes them."""
        count = len(stored["seen"]) if stored["seen"].shape else 0
        found = {name: (stored[name].shape, stored[name].dtype.kind) for name in self._shapes}
        return found == {name: ((count, *shape), kind) for name, (shape, kind) in self._shapes.items()}

    def covers(self, frames: int) -> bool:
        """Whether that many frames are known."""
        return self.known is not None and len(self.known["landmarks"]) >= frames

    def add(self, values: dict[str, np.ndarray]) -> None:
        """Add what was found in the next frames."""
        for name in self._shapes:
            self._found[name].append(values[name])

    def write(self) -> None:
        """Write what was added."""
        write_arrays(self._path, **{name: np.concatenate(parts) for name, parts in self._found.items()}, **self._facts)


def read_target(
    clip: Clip, source: Path, audio: Clip, frames: int, regions: Regions, cache_file: Path, damage: Damage
) -> Iterator[TargetPart]:
    """A target in chunks: decoded, cut, landmarks found.

    Args:
        clip: The target's clip.
        source: Its video.
        audio: The clip whose audio drives the frames.
        frames: How many frames, from the beginning.
        regions: The protocol's detectors.
        cache_file: Where what they find is stored for the next run.
        damage: Counts what the decoder could not read.

    Raises:
        MediaError: The video cannot be read or is shorter than when it was prepared.
    """
    protocol = regions.protocol
    clip_boxes, stored = clip.boxes()[:frames], clip.landmarks()[:frames]
    rectangles = _rectangles(clip, clip_boxes)
    cache = _Cache(cache_file, clip, regions)
    known = cache.covers(frames)
    reference: np.ndarray | None = None
    stream = read_frames(source, FPS, damage)
    step = chunk_frames(clip.header.source_height, clip.header.source_width)
    for first in range(0, frames, step):
        images = list(islice(stream, min(step, frames - first)))
        end = first + len(images)
        if end < min(first + step, frames):
            raise MediaError(
                f"{source} has {end} frames at 25 fps, expected {len(clip)} as when {clip.path.name} was prepared. "
                "The video has changed: bench prepare again"
            )
        if reference is None:
            reference = cut(images[0], clip_boxes[0]).copy()
        part = slice(first, end)
        if known and cache.known is not None:
            found = {name: values[part] for name, values in cache.known.items()}
        else:
            boxes = regions.boxes(images, clip_boxes[part])
            found = {
                "landmarks": find_landmarks(images, rectangles[part]),
                "boxes": boxes,
                "seen": regions.face_found(images, boxes, rectangles[part]),
            }
        boxes = found["boxes"]
        usable = np.isfinite(boxes).all(axis=1)
        crops = compare_crops([f for f, u in zip(images, usable, strict=True) if u], boxes[usable], protocol.size_hw)
        if "crop_landmarks" not in found:
            found["crop_landmarks"] = regions.landmarks(found["landmarks"], boxes, crops, usable)
        if not known:
            cache.add(found)
        if protocol.boxes == "mesh" and protocol.size_hw is not None:  # the crop that they are stored relative to
            lips = stored[part] * np.array(protocol.size_hw[::-1], np.float32)
        else:
            lips = in_crop(in_frame(stored[part], clip_boxes[part]), boxes, protocol.size_hw)
        chunk = TargetChunk(clip.header.id, audio.header.id, first, images, clip_boxes[part], reference)
        points = found["landmarks"], found["crop_landmarks"]
        yield TargetPart(chunk, boxes, crops, *points, rectangles[part], lips, found["seen"])
    if not known:
        cache.write()

# SPDX-License-Identifier: Apache-2.0
"""The real video of a clip, read once in chunks, with everything that is the same for all candidates."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lipsync_bench.datamodules.clips.clip import Clip
from lipsync_bench.datamodules.errors import MediaError
from lipsync_bench.datamodules.faces.crops import cut
from lipsync_bench.datamodules.faces.detectors import hog_like_rectangle, landmarks68
from lipsync_bench.datamodules.files import read_arrays, write_arrays
from lipsync_bench.datamodules.media.audio import frame_mels
from lipsync_bench.datamodules.media.damage import Damage
from lipsync_bench.datamodules.media.video import FPS, read_frames
from lipsync_bench.evaluation.candidates import TargetChunk
from lipsync_bench.evaluation.regions import Regions, compare_crops, in_crop
from lipsync_bench.inference.blending import CONTOUR

_log = logging.getLogger(__name__)
CHUNK_FRAMES = 16  # of a video held at a time, if they are small
CHUNK_BYTES = 16_000_000  # else as many as this holds, but no fewer than
CHUNK_LEAST = 4

__all__ = ["CHUNK_FRAMES", "TargetPart", "chunk_frames", "face_rectangles", "find_landmarks", "in_frame", "read_target"]


def chunk_frames(height: int, width: int) -> int:
    """How many frames of a size are held at a time: memory does not grow with the resolution up to 720p."""
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

    Target and prediction are both searched from the target's rectangle: a detector's own rectangles jump by several
    pixels, and where it finds no face in a bad frame that frame would not count. The search runs on the whole frame,
    whose aspect ratio the predictor knows; the crop's is another.

    Args:
        frames: uint8 RGB (H, W, 3).
        rectangles: (N, 4) from `face_rectangles`.
    """
    return np.stack([landmarks68(frame, r) for frame, r in zip(frames, rectangles, strict=True)])


def _from_mesh(clip: Clip, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Face rectangles (N, 4) and contours (N, 30, 2) in frame pixels; the mesh itself, 6 kB a frame, is not kept."""
    mesh = clip.mesh()
    rectangles, contours = [], []
    for first in range(0, len(boxes), CHUNK_FRAMES):
        part = slice(first, first + CHUNK_FRAMES)
        own = mesh[part][: len(boxes[part])]
        rectangles.append(face_rectangles(own, boxes[part]))
        contours.append(in_frame(own[:, list(CONTOUR), :2], boxes[part]))
    return np.concatenate(rectangles), np.concatenate(contours)


@dataclass(frozen=True)
class TargetPart:
    """A chunk of the target as it is compared. Where a box is NaN there is no crop: `crops` has those of the others.

    Args:
        chunk: The frames, as candidates see them.
        boxes: (N, 4) what is cut out, frame pixels.
        crops: The cuts of the frames with a box.
        landmarks: (N, 68, 2) dlib's points in frame pixels.
        rectangles: (N, 4) of the face, frame pixels.
        lips: (N, 68, 2) the prepared clip's points in crop pixels; they place the mouth region.
        seen: (N,) whether Face Mesh sees a face in the frame alone.
        shared: What metrics found in these frames, as `lipsync_bench.metrics.metric.View` has it.
    """

    chunk: TargetChunk
    boxes: np.ndarray
    crops: list[np.ndarray]
    landmarks: np.ndarray
    rectangles: np.ndarray
    lips: np.ndarray
    seen: np.ndarray
    shared: dict[str, Any] = field(default_factory=dict)


class _Cache:
    """What detectors found in a target, kept for the next run: landmarks, boxes, whether a face was seen.

    Args:
        path: The file.
        clip: The clip; another video or detector makes the file useless.
        regions: The protocol's detectors.
    """

    NAMES = ("landmarks", "boxes", "seen")

    def __init__(self, path: Path, clip: Clip, regions: Regions) -> None:
        self._path = path
        self._facts = {"source": clip.header.source_sha256, "faces": regions.key(clip.header)}
        self._found: dict[str, list[np.ndarray]] = {name: [] for name in self.NAMES}
        self.known = self._read() if path.is_file() else None

    def _read(self) -> dict[str, np.ndarray] | None:
        try:
            stored = read_arrays(self._path)
        except ValueError as error:
            _log.warning("%s It is made anew", error)
            return None
        fits = all(name in stored and np.array_equal(stored[name], value) for name, value in self._facts.items())
        whole = fits and all(name in stored for name in self.NAMES) and self._of_frames(stored)
        return {name: stored[name] for name in self.NAMES} if whole else None

    def _of_frames(self, stored: dict[str, np.ndarray]) -> bool:
        """Whether the arrays have a row for each frame, as `add` takes them."""
        count = len(stored["seen"]) if stored["seen"].shape else 0
        found = [(stored[name].shape, stored[name].dtype.kind) for name in self.NAMES]
        return found == [((count, 68, 2), "f"), ((count, 4), "f"), ((count,), "b")]

    def covers(self, frames: int) -> bool:
        """Whether that many frames are known."""
        return self.known is not None and len(self.known["landmarks"]) >= frames

    def add(self, values: dict[str, np.ndarray]) -> None:
        """Keep what was found in the next frames."""
        for name in self.NAMES:
            self._found[name].append(values[name])

    def write(self) -> None:
        """Write what was added."""
        write_arrays(self._path, **{name: np.concatenate(parts) for name, parts in self._found.items()}, **self._facts)


def read_target(
    clip: Clip, source: Path, sound: Clip, frames: int, regions: Regions, cache_file: Path, damage: Damage
) -> Iterator[TargetPart]:
    """A clip in chunks: decoded, cut, landmarks found.

    Args:
        clip: The video's clip.
        source: Its video.
        sound: The clip whose sound goes with it.
        frames: How many frames, from the beginning.
        regions: The protocol's detectors.
        cache_file: Where what they find is kept for the next run.
        damage: Counts what the decoder could not read.

    Raises:
        MediaError: The video cannot be read or is shorter than when it was prepared.
    """
    protocol = regions.protocol
    clip_boxes, stored = clip.boxes()[:frames], clip.landmarks()[:frames]
    rectangles, contours = _from_mesh(clip, clip_boxes)
    mel = sound.mel()
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
                "seen": regions.seen(images, boxes, rectangles[part]),
            }
            cache.add(found)
        boxes = found["boxes"]
        usable = np.isfinite(boxes).all(axis=1)
        crops = compare_crops([f for f, u in zip(images, usable, strict=True) if u], boxes[usable], protocol.size_hw)
        if protocol.boxes == "mesh" and protocol.size_hw is not None:  # the crop they are stored for
            lips = stored[part] * np.array(protocol.size_hw[::-1], np.float32)
        else:
            lips = in_crop(in_frame(stored[part], clip_boxes[part]), boxes, protocol.size_hw)
        mels = frame_mels(mel, len(images), first_frame=first)
        chunk = TargetChunk(
            clip.header.id, sound.header.id, first, images, clip_boxes[part], mels, reference, contours[part]
        )
        yield TargetPart(chunk, boxes, crops, found["landmarks"], rectangles[part], lips, found["seen"])
    if not known:
        cache.write()

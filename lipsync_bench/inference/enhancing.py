# SPDX-License-Identifier: Apache-2.0
"""Face enhancement after pasting: each frame's face is aligned as FFHQ's, restored by GFPGAN 1.3 and pasted again.

Template, border and the least distance of eyes are those of facexlib 0.2.5 (MIT), which the released inference of
HyperLips calls.

Differs: the five points are means of dlib's 68, not RetinaFace's. The mask is the aligned square, eroded and blurred by
a twentieth of its side each as in facexlib without a face parser; the released inference has ParseNet's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lipsync_bench.datamodules.faces.geometry import Geometry
from lipsync_bench.datamodules.weights.store import Store
from lipsync_bench.models.core.session import Session
from lipsync_bench.models.pretrained.gfpgan import GFPGAN, SIZE, restore_faces, shared_gfpgan

TEMPLATE = np.array(
    [
        (192.98138, 239.94708),
        (318.90277, 240.1936),
        (256.63416, 314.01935),
        (201.26117, 371.41043),
        (313.08905, 371.15118),
    ]
)
"""Where eyes, tip of the nose and corners of the mouth of an aligned face are, x and y in pixels."""
BORDER_RGB = (132, 133, 135)
MIN_EYES_PX = 5.0
BATCH_FACES = 2  # each takes 0.7 GB while it is restored; on a CPU more at once are no faster
_EDGE_PX = SIZE // 20

__all__ = [
    "BATCH_FACES",
    "BORDER_RGB",
    "MIN_EYES_PX",
    "TEMPLATE",
    "AlignedFace",
    "EnhancedSession",
    "FaceEnhancer",
    "align",
    "make_enhancer",
]


def _soft_square() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.float32)
    inside = slice(_EDGE_PX + 1, -_EDGE_PX - 1)  # blurred, the outermost pixels are 0
    mask[inside, inside] = 1
    return cv2.GaussianBlur(mask, (2 * _EDGE_PX + 1, 2 * _EDGE_PX + 1), 0)


_MASK = _soft_square()


@dataclass(frozen=True)
class AlignedFace:
    """An upright square around a face, turned and scaled as FFHQ's.

    Args:
        to_face: float64 (2, 3), from pixels of the frame to pixels of the aligned face.
        box: x1, y1, x2, y2: the part of the frame that the square touches.
    """

    to_face: np.ndarray
    box: tuple[int, int, int, int]

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """uint8 (512, 512, 3), sampled bilinearly, grey beyond the frame."""
        return cv2.warpAffine(frame, self.to_face, (SIZE, SIZE), borderValue=BORDER_RGB)

    def paste(self, frame: np.ndarray, face: np.ndarray) -> np.ndarray:
        """A copy of the frame with an aligned face pasted; nothing changes outside of the square."""
        x1, y1, x2, y2 = self.box
        to_part = cv2.invertAffineTransform(self.to_face) - np.array([[0, 0, x1], [0, 0, y1]])
        filled, weight = (cv2.warpAffine(image, to_part, (x2 - x1, y2 - y1)) for image in (face, _MASK))
        out = frame.copy()
        part = frame[y1:y2, x1:x2].astype(np.float32)
        out[y1:y2, x1:x2] = np.rint(part + weight[..., None] * (filled - part)).astype(np.uint8)
        return out


def align(landmarks: np.ndarray, size_hw: tuple[int, int]) -> AlignedFace | None:
    """The aligned square of a face; None if there is none to enhance.

    That is without the points that it depends on (eyes, nose, mouth), with eyes nearer than 5 px to each other, and
    outside of the frame.

    Args:
        landmarks: (68, 2), pixels of the frame; NaN without a face.
        size_hw: Height and width of the frame.
    """
    eyes = [landmarks[first : first + 6].mean(axis=0) for first in (36, 42)]
    points = np.array([*eyes, landmarks[30], landmarks[48], landmarks[54]], np.float64)
    if not np.isfinite(points).all() or np.linalg.norm(points[1] - points[0]) < MIN_EYES_PX:
        return None
    to_face = cv2.estimateAffinePartial2D(points, TEMPLATE, method=cv2.LMEDS)[0]
    if to_face is None or not np.isfinite(to_face).all():
        return None
    last = SIZE - 1
    square = np.array([[(0, 0), (last, 0), (last, last), (0, last)]], np.float64)
    corners = cv2.transform(square, cv2.invertAffineTransform(to_face))[0]
    limits = (0, 0), size_hw[::-1]
    x1, y1 = np.floor(corners.min(axis=0)).clip(*limits).astype(int)
    x2, y2 = (np.floor(corners.max(axis=0)) + 1).clip(*limits).astype(int)
    return AlignedFace(to_face, (x1, y1, x2, y2)) if x1 < x2 and y1 < y2 else None


class FaceEnhancer:
    """Restores the faces of frames.

    Args:
        network: In evaluation mode, on its device.
        name: What rows call it.
        batch_faces: Faces restored at once.
    """

    def __init__(self, network: GFPGAN, name: str = "gfpgan-1.3", batch_faces: int = BATCH_FACES) -> None:
        self.name = name
        self._network, self._batch = network, batch_faces

    def enhance(self, frames: Sequence[np.ndarray], points: np.ndarray) -> tuple[list[np.ndarray], int]:
        """The frames with restored faces, and how many are as they were because `align` finds no face in them.

        Args:
            frames: N uint8 RGB (H, W, 3); they are left as they are.
            points: (N, 68, 2), dlib's points in pixels of the frames; NaN where there is no face.

        Raises:
            ValueError: A shape or type does not fit; the network gives values that are not finite.
        """
        wrong = next((f for f in frames if f.dtype != np.uint8 or f.ndim != 3 or f.shape[2] != 3), None)
        if wrong is not None or points.shape != (len(frames), 68, 2):
            found = "" if wrong is None else f", one of them {wrong.dtype} {wrong.shape}"
            raise ValueError(
                f"points are {points.shape} for {len(frames)} frames{found}. Expected (N, 68, 2) for N uint8 frames "
                "(H, W, 3), RGB. Use lipsync_bench.datamodules.media.video.read_frames and the track's landmarks"
            )
        squares = [align(here, (len(frame), frame.shape[1])) for here, frame in zip(points, frames, strict=True)]
        faces = [(index, square) for index, square in enumerate(squares) if square is not None]
        enhanced = list(frames)
        for start in range(0, len(faces), self._batch):
            batch = faces[start : start + self._batch]
            aligned = np.stack([square.cut(frames[index]) for index, square in batch])
            for (index, square), face in zip(batch, restore_faces(self._network, aligned), strict=True):
                enhanced[index] = square.paste(frames[index], face)
        return enhanced, len(frames) - len(faces)


class EnhancedSession(Session):
    """Any method's session whose frames are enhanced after their faces are pasted.

    Args:
        session: Of the method.
        geometry: Of the video, with its landmarks.
        enhancer: What restores the faces.

    Raises:
        ValueError: The geometry has no landmarks.
    """

    def __init__(self, session: Session, geometry: Geometry, enhancer: FaceEnhancer) -> None:
        super().__init__()
        if geometry.landmarks is None:
            raise ValueError(
                f"{enhancer.name} without landmarks of the face. Expected its 68 points in each frame. Find them with "
                "find_face(landmarks=True), or leave the faces as they are: --recipe.enhance none"
            )
        self.ping_pong = session.ping_pong
        self._session, self._landmarks, self._enhancer = session, geometry.landmarks, enhancer

    def frames(self, first: int, images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        dubbed = list(self._session.frames(first, images))
        changed = [k for k, (new, old) in enumerate(zip(dubbed, images, strict=True)) if new is not old]
        places = [self.place(first + k, len(self._landmarks)) for k in changed]
        enhanced, without = self._enhancer.enhance([dubbed[k] for k in changed], self._landmarks[places])
        for k, frame in zip(changed, enhanced, strict=True):
            dubbed[k] = frame
        done = self._session
        self.fallback_frames, self.passed_through = done.fallback_frames, done.passed_through
        self.steps_left_out, self.unenhanced = done.steps_left_out, self.unenhanced + without
        yield from dubbed

    def close(self) -> None:
        self._session.close()


def make_enhancer(store: Store, device: str = "cpu") -> FaceEnhancer:
    """The enhancer with the weights of the store; its name has the start of their SHA-256 if they are not official.

    Raises:
        FileNotFoundError: They are not here.
        ValueError: As `load_gfpgan`.
    """
    found = store.need("gfpgan_1_3")
    name = "gfpgan-1.3" if found.official else f"gfpgan-1.3 {found.sha256[:12]}"
    return FaceEnhancer(shared_gfpgan(found.path, found.sha256, device), name)

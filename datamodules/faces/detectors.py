# SPDX-License-Identifier: Apache-2.0
"""Face detectors behind one interface.

All return the same for a face: a box, the 478 points of MediaPipe's Face Mesh (with irises) and dlib's 68 points (iBUG
scheme). They differ in what finds the face:

* `mediapipe`: Face Mesh, which searches for faces only while it tracks fewer than `MAX_FACES`. The 68 points come from
  dlib's predictor in a rectangle placed as dlib's own detector would place it.
* `dlib`: the HOG detector (frontal faces, 1 up-sampling) on every frame, the 68 points in its rectangle, and Face Mesh
  in a square around it. Slow: about 0.2 s for a frame of 0.35 megapixel.
* `s3fd`: the network that the Wav2Lip scripts cut faces with, at full resolution on every frame, for the papers' own
  protocols. Its weights are given by path. One face a frame, the one with the highest score.

Images are uint8 RGB (H, W, 3); coordinates are pixels, origin at the top left corner of the frame. Differs: the
HyperLips preparation gives Face Mesh BGR images for its sketches, which moves points by up to 2 px; here it sees RGB.
"""

import functools
import multiprocessing
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import dlib
import mediapipe
import numpy as np

from lipsync_bench.datamodules.faces.dlib_models import LANDMARKS68, dlib_model
from lipsync_bench.datamodules.faces.options import DetectorName
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.datamodules.native_messages import without_notices
from lipsync_bench.datamodules.weights.store import Store

MAX_FACES = 4
# dlib's HOG rectangle, estimated from the box of the mesh: a square of 1.09 widths, centred 0.59 widths below the upper
# edge (median over 28 frames of four people, spread 3 % of the width). The lower edge is not used, so that the
# rectangle does not move with the jaw. On a face of 200 px the 68 points differ by 1.0 px from those in the true HOG
# rectangle, as much as a shift of that rectangle by 3 px causes (it moves in larger jumps).
_HOG_SIDE = 1.09
_HOG_CENTRE = 0.59
_MESH_MARGIN = 2.0  # side of the square searched for the mesh, in dlib rectangles
_DUPLICATE_IOU = 0.6  # Face Mesh sometimes tracks one face twice

__all__ = [
    "DETECTORS",
    "MAX_FACES",
    "DlibDetector",
    "Face",
    "FaceCheck",
    "FaceDetector",
    "FaceMesh",
    "MediaPipeDetector",
    "S3FDDetector",
    "area",
    "centre",
    "detect_landmarks68",
    "detector_version",
    "dlib_rectangle",
    "frontal_score",
    "hog_like_rectangle",
    "iou",
    "landmarks68",
    "make_detector",
]


class Face(NamedTuple):
    """One face in one frame: box (4,) x1 y1 x2 y2, landmarks (68, 2), mesh (478, 3); all float32, pixels. From a
    detector with `landmarks=False`, landmarks are (0, 2).
    """

    box: np.ndarray
    landmarks: np.ndarray
    mesh: np.ndarray


@functools.lru_cache(maxsize=1)
def _predictor() -> Any:
    return dlib.shape_predictor(str(dlib_model(LANDMARKS68, "dlib's 68 points")))


@functools.lru_cache(maxsize=1)
def _hog() -> Any:
    return dlib.get_frontal_face_detector()


def _check_image(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image is {image.dtype} {image.shape}, expected uint8 RGB (H, W, 3)")
    return np.ascontiguousarray(image)


def landmarks68(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """dlib's 68 points in a rectangle, float32 (68, 2), pixels.

    Args:
        image: uint8 RGB (H, W, 3).
        box: left, top, right, bottom, placed as by dlib's frontal detector (brows to chin); it is rounded, and may
            extend beyond the image.
    """
    rectangle = dlib.rectangle(*(int(value) for value in np.rint(box)))
    points = _predictor()(_check_image(image), rectangle).parts()
    return np.array([(point.x, point.y) for point in points], np.float32)


def _no_landmarks(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    return np.empty((0, 2), np.float32)


def _hog_rectangles(image: np.ndarray) -> list[np.ndarray]:
    found = _hog()(_check_image(image), 1)  # best score first
    return [np.array([r.left(), r.top(), r.right(), r.bottom()], np.float32) for r in found]


def frontal_score(image: np.ndarray) -> float:
    """Score of dlib's HOG detector for an upright face in the image: above 0 it is a face; the lowest is -2."""
    scores = _hog().run(_check_image(image), 0, -2.0)[1]
    return max([-2.0, *scores])


def detect_landmarks68(image: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """dlib's best frontal face (HOG, 1 up-sampling): its rectangle and its 68 points, or None.

    Returns:
        Rectangle float32 (4,): left, top, right, bottom (inclusive), and points float32 (68, 2), in pixels.
    """
    rectangles = _hog_rectangles(image)
    return (rectangles[0], landmarks68(image, rectangles[0])) if rectangles else None


def dlib_rectangle(image: np.ndarray) -> np.ndarray | None:
    """dlib's best frontal face (HOG, 1 up-sampling): its rectangle float32 (4,), or None."""
    rectangles = _hog_rectangles(image)
    return rectangles[0] if rectangles else None


def hog_like_rectangle(mesh_box: np.ndarray) -> np.ndarray:
    """Where dlib's frontal detector would place its rectangle (left, top, right, bottom), from the mesh's box."""
    x1, y1, x2, _ = mesh_box
    half = _HOG_SIDE * (x2 - x1) / 2
    x, y = (x1 + x2) / 2, y1 + _HOG_CENTRE * (x2 - x1)
    return np.array([x - half, y - half, x + half, y + half], np.float32)


def area(box: np.ndarray) -> float:
    """Area of a box x1 y1 x2 y2; 0 if it is empty."""
    return float(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]))


def centre(box: np.ndarray) -> np.ndarray:
    """Centre (x, y) of a box x1 y1 x2 y2."""
    return (box[:2] + box[2:]) / 2


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes, 0..1."""
    common = area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))
    return common / max(area(a) + area(b) - common, 1e-9)


class FaceMesh(mediapipe.solutions.face_mesh.FaceMesh):
    """MediaPipe's, without what it tells of itself on standard error until it has found its first face."""

    _quiet = False

    def __init__(self, **settings: Any) -> None:
        with without_notices():
            super().__init__(**settings)
            self._graph.wait_until_idle()  # it starts by itself

    def process(self, image: np.ndarray) -> Any:
        """The landmarks of a uint8 RGB image (H, W, 3)."""
        if self._quiet:
            return super().process(image)
        with without_notices():
            found = super().process(image)
        self._quiet = bool(found.multi_face_landmarks)
        return found


class _Mesh:
    """Face Mesh of MediaPipe: image -> list of (478, 3) in pixels."""

    def __init__(self, *, faces: int, still: bool) -> None:
        self._solution = FaceMesh(static_image_mode=still, max_num_faces=faces, refine_landmarks=True)

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        height, width = image.shape[:2]
        found = self._solution.process(image).multi_face_landmarks or []
        scale = np.array([width, height, width], np.float32)
        return [np.array([(p.x, p.y, p.z) for p in face.landmark], np.float32) * scale for face in found]

    def close(self) -> None:
        self._solution.close()

    def around(self, frame: np.ndarray, rectangle: np.ndarray) -> np.ndarray | None:
        """The mesh (478, 3) of the face in a square around a rectangle, or None."""
        x, y = centre(rectangle)
        half = _MESH_MARGIN * (rectangle[2] - rectangle[0] + 1) / 2
        left, top = max(0, int(x - half)), max(0, int(y - half))
        region = np.ascontiguousarray(frame[top : max(0, int(y + half)), left : max(0, int(x + half))])
        found = self(region) if region.size else []
        return found[0] + np.array([left, top, 0], np.float32) if found else None


def _mesh_box(mesh: np.ndarray) -> np.ndarray:
    return np.concatenate([mesh[:, :2].min(axis=0), mesh[:, :2].max(axis=0)])


class FaceCheck:
    """Whether there is a face at an expected position, by Face Mesh on each frame separately, without tracking."""

    def __init__(self) -> None:
        self._mesh = _Mesh(faces=1, still=True)

    def __call__(self, frame: np.ndarray, rectangle: np.ndarray) -> bool:
        """True if a face is found in a square around the rectangle (4,) x1 y1 x2 y2, of twice its side."""
        return self._mesh.around(_check_image(frame), rectangle) is not None

    def close(self) -> None:
        """Free the detector."""
        self._mesh.close()


class FaceDetector(ABC):
    """Finds faces in the frames of one video, given in order. It may track faces: use a new one for every video.

    Class attributes: `name`, as in `make_detector`; `version`, package version and model.

    Args:
        landmarks: False if the 68 points are not needed. dlib's predictor takes 2 ms a face, half a second to load,
            and 70 MB; neither box nor mesh depends on it.
    """

    name: str
    version: str

    def __init__(self, *, landmarks: bool = True) -> None:
        self._landmarks68 = landmarks68 if landmarks else _no_landmarks

    def __enter__(self) -> "FaceDetector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def detect(self, frame: np.ndarray) -> list[Face]:
        """At most `MAX_FACES` faces of a frame, uint8 RGB (H, W, 3), in no particular order."""

    def boxes(self, frame: np.ndarray) -> list[np.ndarray]:
        """The detector's own boxes (4,) of all faces of a frame, also of those without a mesh."""
        return [face.box for face in self.detect(frame)]

    @abstractmethod
    def close(self) -> None:
        """Free the detector."""


class MediaPipeDetector(FaceDetector):
    """Face Mesh with refinement (478 points), tracking mode, both confidences 0.5.

    Frames are not shrunk before: it samples its own 192 x 192 input, so that half the size saves 0.4 ms at 1080p, less
    than the shrinking costs.
    """

    name = "mediapipe"
    version = f"mediapipe {mediapipe.__version__} face_mesh refine"

    def __init__(self, *, landmarks: bool = True) -> None:
        super().__init__(landmarks=landmarks)
        self._mesh = _Mesh(faces=MAX_FACES, still=False)

    def detect(self, frame: np.ndarray) -> list[Face]:
        frame = _check_image(frame)
        faces: list[Face] = []
        for mesh in self._mesh(frame):
            box = _mesh_box(mesh)
            if area(box) > 0 and all(iou(box, other.box) < _DUPLICATE_IOU for other in faces):
                faces.append(Face(box, self._landmarks68(frame, hog_like_rectangle(box)), mesh))
        return faces

    def close(self) -> None:
        self._mesh.close()


class DlibDetector(FaceDetector):
    """HOG frontal detector with 1 up-sampling; a face without a mesh in the square around it is ignored."""

    name = "dlib"
    version = f"dlib {dlib.__version__} hog, mediapipe {mediapipe.__version__} face_mesh refine"

    def __init__(self, *, landmarks: bool = True) -> None:
        super().__init__(landmarks=landmarks)
        self._mesh = _Mesh(faces=1, still=True)

    def detect(self, frame: np.ndarray) -> list[Face]:
        frame = _check_image(frame)
        faces = []
        for rectangle in _hog_rectangles(frame)[:MAX_FACES]:
            mesh = self._mesh.around(frame, rectangle)
            if mesh is not None:
                faces.append(Face(rectangle, self._landmarks68(frame, rectangle), mesh))
        return faces

    def boxes(self, frame: np.ndarray) -> list[np.ndarray]:
        return _hog_rectangles(frame)

    def close(self) -> None:
        self._mesh.close()


@functools.lru_cache(maxsize=1)
def _s3fd(path: Path, digest: str) -> Any:
    import torch

    from lipsync_bench.datamodules.faces import s3fd

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # there is one worker a core already
    return s3fd.load_s3fd(path, "cuda" if torch.cuda.is_available() else "cpu")


@functools.lru_cache(maxsize=4)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    return sha256(path)


class S3FDDetector(FaceDetector):
    """S3FD as the Wav2Lip scripts use it (`s3fd.rectangles`): one face a frame, the one with the highest score.

    Its box is the published rectangle: whole pixels, left and top clipped to the frame. The mesh is searched in a
    square around it, the 68 points in a rectangle derived from the mesh, as with `mediapipe`. It runs on a GPU if there
    is one.

    Differs: a face without a mesh (such as a profile) is ignored, so that the frame is bridged like one without a face;
    the scripts keep such frames and leave out those without a face.

    Args:
        weights: `s3fd-619a316812.pth`.
        landmarks: As in `FaceDetector`.
    """

    name = "s3fd"
    version = f"s3fd, mediapipe {mediapipe.__version__} face_mesh refine"
    """The version of an instance names the weights too."""

    def __init__(self, weights: Path, *, landmarks: bool = True) -> None:
        super().__init__(landmarks=landmarks)
        self.version = detector_version("s3fd", weights)
        self._network = _s3fd(weights, self.version)
        self._mesh = _Mesh(faces=1, still=True)

    def detect(self, frame: np.ndarray) -> list[Face]:
        from lipsync_bench.datamodules.faces import s3fd

        frame = _check_image(frame)
        found = s3fd.rectangles(self._network, frame[None])[0] if min(frame.shape[:2]) >= s3fd.MIN_SIDE_PX else None
        mesh = None if found is None else self._mesh.around(frame, np.array(found, np.float32))
        if mesh is None:
            return []
        landmarks = self._landmarks68(frame, hog_like_rectangle(_mesh_box(mesh)))
        return [Face(np.array(found, np.float32), landmarks, mesh)]

    def boxes(self, frame: np.ndarray) -> list[np.ndarray]:
        from lipsync_bench.datamodules.faces import s3fd

        frame = _check_image(frame)
        large = min(frame.shape[:2]) >= s3fd.MIN_SIDE_PX
        found = s3fd.all_rectangles(self._network, frame[None])[0] if large else []
        return [np.array(rectangle, np.float32) for rectangle in found]

    def close(self) -> None:
        self._mesh.close()


DETECTORS: dict[str, type[FaceDetector]] = {
    "mediapipe": MediaPipeDetector,
    "dlib": DlibDetector,
    "s3fd": S3FDDetector,
}


def detector_version(name: DetectorName, weights: Path | None = None) -> str:
    """Package versions and model of a detector, with the SHA-256 of the weights if they are a user's file.

    Raises:
        ValueError: unknown name, or weights for a detector that includes its own.
        FileNotFoundError: no weights for a detector that needs them.
    """
    if name not in DETECTORS:
        raise ValueError(f"detector {name!r}, expected one of {', '.join(DETECTORS)} (--detector)")
    if name != "s3fd":
        if weights is not None:
            raise ValueError(
                f"detector {name!r} with the weights {weights}. Expected weights only for s3fd. Set --detector s3fd"
            )
        return DETECTORS[name].version
    if weights is None or not weights.is_file():
        raise FileNotFoundError(
            f"{weights or 'detector s3fd'}: no weights. Expected s3fd-619a316812.pth. Run: bench weights fetch s3fd"
        )
    state = weights.stat()
    digest = _digest(weights.resolve(), state.st_size, state.st_mtime_ns)
    return f"{S3FDDetector.version}, weights sha256 {digest}"


def detector_file(detector: DetectorName, store: Store) -> Path | None:
    """The weight file of a detector; None for one that includes its own.

    Raises:
        FileNotFoundError: It is not here; says how to come by it.
    """
    return store.need("s3fd").path if detector == "s3fd" else None


def make_detector(name: DetectorName, weights: Path | None = None, *, landmarks: bool = True) -> FaceDetector:
    """A new detector for one video; `weights` only for `s3fd`. Errors as in `detector_version`.

    Args:
        name: One of `DETECTORS`.
        weights: Weight file of `s3fd`.
        landmarks: As in `FaceDetector`.
    """
    detector_version(name, weights)
    return S3FDDetector(weights, landmarks=landmarks) if weights is not None else DETECTORS[name](landmarks=landmarks)

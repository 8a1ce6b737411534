# SPDX-License-Identifier: Apache-2.0
"""From SyncNet's embeddings of lips and audio to the scores: distances at each shift, confidence, offset.

Chung, Zisserman: "Out of time: automated lip sync in the wild", ACCV workshop 2016.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SHIFT_FRAMES = 15

__all__ = ["SHIFT_FRAMES", "SyncScore", "curve_text", "shifted_distances", "sync_distances", "sync_score"]


@dataclass(frozen=True, eq=False)
class SyncScore:
    """How well the lips of one clip follow its audio.

    Attributes:
        lse_c: confidence: median minus minimum of the mean distances over the shifts; higher is better.
        lse_d: the least mean distance over the shifts; lower is better.
        offset_frames: the shift of that minimum at 25 fps. Positive: the audio that matches a video window starts
            EARLIER than it.
        windows: number of 5-frame windows.
        distances: (windows, 2 * shift + 1) float32, each window against each shift of the audio.
    """

    lse_c: float
    lse_d: float
    offset_frames: int
    windows: int
    distances: Tensor


def sync_distances(lips: Tensor, audio: Tensor, shift_frames: int = SHIFT_FRAMES) -> Tensor:
    """Distance of every lip window to the audio windows around it: `D[v, j] = |lips[v] - audio[v + j - shift] + 1e-6|`.

    Audio windows before the start and after the end are zero vectors and take part like the others: for clips of a
    second or less they dominate the score, as in the published evaluation.

    Args:
        lips: (T, E) embeddings.
        audio: (T, E) embeddings.
        shift_frames: largest shift in either direction.

    Returns:
        (T, 2 * shift_frames + 1).

    Example:
        >>> lips = torch.eye(40)
        >>> distances = sync_distances(lips, lips.roll(3, dims=0))  # the audio comes 3 frames late
        >>> distances.shape, sync_score(distances).offset_frames
        (torch.Size([40, 31]), -3)
    """
    if lips.ndim != 2 or lips.shape != audio.shape or 0 in lips.shape or not lips.is_floating_point():
        raise ValueError(
            f"lips has shape {tuple(lips.shape)}, audio {tuple(audio.shape)}, dtype {lips.dtype}. Expected two equal "
            "shapes (T, E), floating. Use as many audio windows as lip windows"
        )
    if shift_frames < 1:
        raise ValueError(f"shift_frames is {shift_frames}. Expected at least 1. Use the published {SHIFT_FRAMES}")
    return shifted_distances(lips, F.pad(audio, (0, 0, shift_frames, shift_frames)))


def shifted_distances(lips: Tensor, audio: Tensor) -> Tensor:
    """Rows of `sync_distances` for some of a clip's windows.

    Args:
        lips: (N, E) embeddings of windows that follow each other.
        audio: (N + 2 * shift, E) embeddings of the audio windows from the first one's -shift to the last one's +shift.

    Returns:
        (N, 2 * shift + 1).
    """
    # One shift at a time: all of them together would take 31 times the memory of the embeddings.
    columns = [F.pairwise_distance(lips, audio[j : j + len(lips)]) for j in range(len(audio) - len(lips) + 1)]
    return torch.stack(columns, dim=1)


def sync_score(distances: Tensor) -> SyncScore:
    """The scores of a distance matrix (T, 2 * shift + 1): of its column means, minimum, its shift, median - minimum."""
    if distances.ndim != 2 or distances.shape[0] == 0 or distances.shape[1] % 2 == 0:
        raise ValueError(
            f"distances has shape {tuple(distances.shape)}. Expected (T, 2 * shift + 1) with T >= 1. Use "
            "sync_distances(lips, audio)"
        )
    means = distances.mean(dim=0)
    best = int(means.argmin())
    return SyncScore(
        lse_c=float(means.median() - means[best]),
        lse_d=float(means[best]),
        offset_frames=distances.shape[1] // 2 - best,
        windows=len(distances),
        distances=distances,
    )


def curve_text(curve: Tensor) -> str:
    """One number for each shift, (2 * shift + 1,), as rows hold them: 6 digits, separated by blanks."""
    return " ".join(f"{float(value):.6g}" for value in curve)

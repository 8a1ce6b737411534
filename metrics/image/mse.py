# SPDX-License-Identifier: Apache-2.0
"""Mean squared error of images in [0, 1], one value per image."""

from typing import Any

from torch import Tensor

from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.image.checks import DATA_RANGE, checked_pair
from lipsync_bench.metrics.image.scorer import PairScorer
from lipsync_bench.metrics.metric import Column, Description, ScoredClip, Scorer

__all__ = ["MSE", "mse"]


def mse(pred: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each image over its pixels and channels, on the scale 0 (black) to 1 (white).

    Args:
        pred: (B, C, H, W), C = 3 (RGB; the order of the channels does not matter) or 1 (gray), uint8 or float in
            0..255, as for every image metric here; the division by 255 happens inside.
        target: as `pred`.

    Returns:
        (B,) float64 in 0..1; `10 log10(1 / mse)` is the image's PSNR.

    Raises:
        ValueError: wrong shape, dtype or range.

    Example:
        >>> import torch
        >>> target = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
        >>> pred = target.clone()
        >>> pred[0] += 51  # a fifth of the range
        >>> mse(pred, target)
        tensor([0.0400, 0.0000], dtype=torch.float64)
    """
    x, y = checked_pair(pred, target)
    return (x - y).square().mean(dim=(1, 2, 3)) / DATA_RANGE**2


class MSE(FrameMean):
    r"""Mean over frames of the mean squared error on [0, 1], the column MSE of G4G's tables.

    .. math:: \mathrm{MSE} = \frac{1}{n} \sum_t \frac{1}{3HW} \sum_{c,p} \left(\frac{x_{tcp} - y_{tcp}}{255}\right)^2

    * Input: pairs of frames (B, C, H, W), RGB or gray, uint8 or float in 0..255. As for PSNR, pass decoded frames to
      score a video after encoding.
    * Average: over pixels and channels, then frames, whatever clip they come from.
    * Reference: scikit-image 0.26 `mean_squared_error(target / 255, pred / 255)` for each frame.
    * Known differences: G4G does not print the range; 0.0014 to 0.0046 beside 23.7 to 28.5 dB of PSNR fits [0, 1]. An
      MSE of 8-bit values is 65025 times as large.

    Example:
        >>> import torch
        >>> target = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
        >>> metric = MSE()
        >>> metric.update(target + 51, target)
        >>> metric.compute()
        tensor(0.0400, dtype=torch.float64)
    """

    higher_is_better = False
    is_differentiable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("mse_unit_range", **kwargs)

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add the frames of one batch; see `mse` for the arguments."""
        self.add(mse(pred, target))


def scorer(clip: ScoredClip) -> Scorer | None:
    """Scores the crops."""
    return PairScorer("mse", mse, 0.0) if clip.paired else None


METRIC = Description(
    columns=(Column("mse", "MSE", "", False, 5, (0, 1), "target", "mean squared error of RGB in 0..1", order=50),),
    about={
        "mse": "Mean squared difference from the real frame's pixels, from 0 (identical) to 1.",
    },
    checked="scikit-image on the same frames, 1e-12; golden arrays, 1e-6",
)

# SPDX-License-Identifier: Apache-2.0
"""Peak signal-to-noise ratio, one value per image."""

import math
from typing import Any

import torch
from torch import Tensor

from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.image.checks import DATA_RANGE, checked_pair
from lipsync_bench.metrics.image.scorer import PairScorer
from lipsync_bench.metrics.metric import INF, Column, Description, Field, ScoredClip, Scorer

__all__ = ["PSNR", "psnr"]


def psnr(pred: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image: `10 log10(255^2 / MSE)`, MSE over all its pixels and channels.

    Args:
        pred: (B, C, H, W), C = 3 (RGB; the order of the channels does not matter) or 1 (gray), uint8 or float in
            0..255.
        target: as `pred`.

    Returns:
        (B,) float64 in dB; +inf where the two images are identical.

    Raises:
        ValueError: wrong shape, dtype or range.

    Example:
        >>> import torch
        >>> target = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
        >>> pred = target.clone()
        >>> pred[0] += 5  # an error of 5 grey levels: 20 log10(255 / 5)
        >>> psnr(pred, target)
        tensor([34.1514,     inf], dtype=torch.float64)
    """
    x, y = checked_pair(pred, target)
    mse = (x - y).square().mean(dim=(1, 2, 3))
    return 10.0 * torch.log10(DATA_RANGE**2 / mse)


class PSNR(FrameMean):
    r"""Mean over frames of the per-frame PSNR.

    .. math:: \mathrm{PSNR} = \frac{1}{n} \sum_t 10 \log_{10} \frac{255^2}{\mathrm{MSE}_t}

    * Input: pairs of frames (B, C, H, W), RGB or gray, uint8 or float in 0..255. To score a video after encoding, pass
      the decoded frames; a network's float output gives a slightly higher value than the same frames rounded to 8 bits.
    * Average: over frames, whatever clip they come from. Use one instance a clip and average the clips for the mean
      over clips. Frames identical to their target have no finite PSNR: they are left out of the mean and counted in
      `infinite_frames`. If all frames are identical the result is inf; without any frame it is nan.
    * Reference: scikit-image 0.26 `peak_signal_noise_ratio(target, pred, data_range=255)` for each frame.
    * Known differences: torchmetrics 1.9 `PeakSignalNoiseRatio` pools the squared error over all frames before the
      logarithm, which is lower; OpenCV gives 361.2 dB for identical frames; some talking-face scripts subtract uint8
      arrays that wrap around, which can hardly leave 28 to 35 dB whatever the image.

    Example:
        >>> import torch
        >>> target = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
        >>> pred = target.clone()
        >>> pred[0] += 5
        >>> metric = PSNR()
        >>> metric.update(pred, target)
        >>> metric.compute(), metric.infinite_frames
        (tensor(34.1514, dtype=torch.float64), 1)
    """

    higher_is_better = True
    is_differentiable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("psnr_per_frame", **kwargs)

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add the frames of one batch; see `psnr` for the arguments."""
        values = psnr(pred, target)
        self.add(values, torch.isfinite(values))

    def compute(self) -> Tensor:
        """Mean over the frames with a finite value, float64, in dB."""
        mean = super().compute()
        return torch.full_like(mean, float("inf")) if mean.isnan() and self.infinite_frames else mean

    @property
    def infinite_frames(self) -> int:
        """Frames identical to their target, left out of the mean (of this process, unless states are synchronised)."""
        return self.skipped_frames


def scorer(clip: ScoredClip) -> Scorer | None:
    """Scores the crops and their mouth regions."""
    return PairScorer("psnr", psnr, math.inf, mouth=True, infinite="psnr_infinite_frames") if clip.paired else None


METRIC = Description(
    columns=(
        Column(
            "psnr", "PSNR", "dB", True, 2, (0, INF), "target", "10 log10(255^2 / MSE) of RGB, frame by frame", order=10
        ),
        Column(
            "psnr_mouth",
            "PSNR mouth",
            "dB",
            True,
            2,
            (0, INF),
            "target",
            "PSNR of the box around the target's lips",
            order=30,
        ),
    ),
    about={
        "psnr": "How close the pixels are to those of the real frame: 3 dB more is half the squared error.",
        "psnr_mouth": "PSNR in the box around the lips alone, where methods differ most.",
    },
    checked="scikit-image on the same frames, 1e-9 dB; golden arrays, 1e-6",
    counts=(Field("psnr_infinite_frames", "Frames identical to the target, outside the mean of PSNR."),),
)

# SPDX-License-Identifier: Apache-2.0
"""PSNR with uint8 overflow, as the evaluation script of ATVGnet computes it: a diagnostic of printed tables."""

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.image.checks import DATA_RANGE, checked_pair
from lipsync_bench.metrics.image.gray import gray_8bit
from lipsync_bench.metrics.image.scorer import PairScorer, image
from lipsync_bench.metrics.metric import Column, Description, ScoredClip, Scorer

__all__ = ["PSNRUint8", "psnr_uint8"]

NO_ERROR_DB = 100.0
SCRIPT_PX = 256  # to which the script resizes both images


def psnr_uint8(pred: Tensor, target: Tensor) -> Tensor:
    """`10 log10(255^2 / mean((x - y)^2 mod 256))` of each image's gray values; it does not measure quality.

    Args:
        pred: (B, C, H, W), C = 3 (RGB) or 1 (gray), uint8 or float in 0..255, which is rounded to 8 bits first.
        target: as `pred`.

    Returns:
        (B,) float64 in dB, 24.2 or more; 100, as in the script, where the wrapped error is 0: for identical images and
        for any difference of a multiple of 16.

    Raises:
        ValueError: wrong shape, dtype or range.

    Example:
        >>> import torch
        >>> target = torch.full((3, 1, 16, 16), 100, dtype=torch.uint8)
        >>> pred = target.clone()
        >>> pred[0] += 15  # 225
        >>> pred[1] += 17  # 289, of which 33 is left: a larger error, a higher value
        >>> psnr_uint8(pred, target)
        tensor([ 24.6090,  32.9457, 100.0000], dtype=torch.float64)
    """
    x, y = (gray_8bit(images) for images in checked_pair(pred, target))
    difference = x - y  # both uint8: the difference and its square wrap around on purpose
    squares = (difference * difference).to(torch.float64).mean(dim=(1, 2))
    values = 10.0 * torch.log10(DATA_RANGE**2 / squares)
    return torch.where(squares == 0, NO_ERROR_DB, values)


class PSNRUint8(FrameMean):
    r"""Mean over frames of the "PSNR" of a script that subtracts and squares 8-bit arrays without widening them.

    .. math:: 10 \log_{10} \frac{255^2}{\frac{1}{HW} \sum_p \left((x_p - y_p)^2 \bmod 256\right)}

    * Purpose: to see whether a printed table can come from the evaluation script of ATVGnet (2019). Squares modulo 256
      are 249 at most, so that the value hardly leaves 28 to 35 dB however bad the image: 31 dB beside an SSIM of 0.70
      is typical. That the papers' tables come from it is inferred from their numbers; none says so.
    * It does not compare methods. It is not monotonic in the error (black against white scores 48.1 dB), so that
      neither direction is better (`higher_is_better = None`). It is not in the leaderboard, and is shown only where a
      paper's table is reproduced, beside the correct PSNR.
    * Input: pairs of frames (B, C, H, W), RGB or gray, uint8, or float in 0..255, rounded. Compared in gray (PIL's mode
      L). The script resizes both images to 256 x 256 first (OpenCV's INTER_AREA); here nothing is resized: do it
      before.
    * Average: over pixels, then frames, whatever clip they come from. Frames without error count as 100 dB, as in the
      script.
    * Reference: the formula in NumPy's uint8; golden values of the script's arithmetic.
    * Known differences: OpenCV's gray may differ from PIL's by one level.

    Example:
        >>> import torch
        >>> target = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
        >>> metric = PSNRUint8()
        >>> metric.update(target + 15, target)
        >>> metric.compute()
        tensor(24.6090, dtype=torch.float64)
    """

    higher_is_better = None  # it is not monotonic in the error
    is_differentiable = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("psnr_uint8_gray", **kwargs)

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add the frames of one batch; see `psnr_uint8` for the arguments."""
        self.add(psnr_uint8(pred, target))


def _at_script_size(pred: Tensor, target: Tensor) -> Tensor:
    size = (SCRIPT_PX, SCRIPT_PX)
    crops = (images[0].permute(1, 2, 0).numpy() for images in (pred, target))
    resized = (cv2.resize(np.ascontiguousarray(crop), size, interpolation=cv2.INTER_AREA) for crop in crops)
    return psnr_uint8(*(image(crop) for crop in resized))


def scorer(clip: ScoredClip) -> Scorer | None:
    """Scores the crops, both resized as in the script."""
    return PairScorer("psnr_uint8", _at_script_size, NO_ERROR_DB) if clip.paired else None


METRIC = Description(
    columns=(
        Column(
            "psnr_uint8",
            "PSNR uint8",
            "dB",
            None,
            2,
            (24, 100),
            "target",
            "wrapping 8-bit arithmetic of ATVGnet's script, 2019",
            kind="diagnostic",
            order=900,
        ),
    ),
    about={
        "psnr_uint8": "Not a quality: repeats the 8-bit overflow of a script, and is shown only beside a paper's PSNR.",
    },
    checked="golden values; the arithmetic that may explain printed 31 dB, shown only beside a paper's PSNR",
)

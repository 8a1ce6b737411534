# SPDX-License-Identifier: Apache-2.0
"""Mean squared error of images in [0, 1], one value per image."""

from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from metrics.image_checks import DATA_RANGE, checked_pair

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


class MSE(Metric):
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
    full_state_update = False
    unit: ClassVar[str] = "1"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    protocol: ClassVar[str] = "mse_unit_range"

    mse_sum: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for state in ("mse_sum", "count"):
            self.add_state(state, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add the frames of one batch; see `mse` for the arguments."""
        values = mse(pred, target)
        self.mse_sum += values.sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        """Mean over frames, float64; nan without any frame."""
        return self.mse_sum / self.count

    @property
    def frames(self) -> int:
        """Frames seen (of this process, unless states are synchronised)."""
        return int(self.count)

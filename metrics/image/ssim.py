# SPDX-License-Identifier: Apache-2.0
"""Structural similarity as Wang et al. defined it in 2004, one value per image."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lipsync_bench.metrics.frame_mean import FrameMean
from lipsync_bench.metrics.image.checks import DATA_RANGE, checked_pair
from lipsync_bench.metrics.image.scorer import PairScorer
from lipsync_bench.metrics.metric import Column, Description, ScoredClip, Scorer

__all__ = ["SSIM", "ssim"]

SIGMA = 1.5
RADIUS = 5  # an 11 x 11 window
C1 = (0.01 * DATA_RANGE) ** 2
C2 = (0.03 * DATA_RANGE) ** 2
BAND_PIXELS = 2**17


@cache  # needed in every smoothing; computed each time they took a fifth of it
def _taps() -> tuple[float, ...]:
    """Half of the normalised Gaussian: the weight of the centre, then of the pixels 1 to 5 away."""
    half = torch.exp(-0.5 * (torch.arange(RADIUS + 1, dtype=torch.float64) / SIGMA) ** 2)
    return tuple((half / (half[0] + 2 * half[1:].sum())).tolist())


def _smooth(x: Tensor, axis: int) -> Tensor:
    """Windowed mean along one axis, only where the whole window fits: the axis loses 2 * RADIUS entries.

    Sums of shifted views: float64 convolutions of one channel are several times slower on a CPU.
    """
    centre, *taps = _taps()
    size = x.shape[axis] - 2 * RADIUS
    out = x.narrow(axis, RADIUS, size) * centre
    for k, tap in enumerate(taps, start=1):
        out.add_(x.narrow(axis, RADIUS - k, size) + x.narrow(axis, RADIUS + k, size), alpha=tap)
    return out


def _mean(x: Tensor) -> Tensor:
    return _smooth(_smooth(x, -2), -1)


def _map(x: Tensor, y: Tensor) -> Tensor:
    """The similarity of channels at every position where the window fits: (P, H, W) -> (P, H - 10, W - 10)."""
    mx, my = _mean(x), _mean(y)
    mxx, myy, mxy = mx * mx, my * my, mx * my
    variances = _mean(x * x + y * y) - mxx - myy  # v_x + v_y: only their sum is needed
    covariance = _mean(x * y) - mxy
    return (2 * mxy + C1) * (2 * covariance + C2) / ((mxx + myy + C1) * (variances + C2))


def _ssim_of_channels(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """The means of P channels (H, W) of one size: (P,).

    In bands of rows that stay in the processor's cache: for a 1080p frame 0.2 s on a core instead of 2 s. Each channel
    is summed separately: a sum over an axis may add in another order, and the last digits would depend on P.
    """
    height, width = xs[0].shape[0] - 2 * RADIUS, xs[0].shape[1]
    rows = max(1, BAND_PIXELS // width)
    total = xs[0].new_zeros(len(xs))
    for top in range(0, height, rows):
        band = slice(top, min(top + rows, height) + 2 * RADIUS)
        similar = _map(torch.stack([x[band] for x in xs]), torch.stack([y[band] for y in ys]))
        total = total + torch.stack([channel.sum() for channel in similar])
    return total / (height * (width - 2 * RADIUS))


def ssim(pred: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004, equation 13), averaged over pixels and channels.

    Local means m, variances v and covariance c under a Gaussian window (sigma 1.5, 11 x 11, normalised), c = E[xy] -
    m_x m_y, C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2, only where the window lies inside the image (5 pixels of border
    are dropped): `(2 m_x m_y + C1)(2 c + C2) / ((m_x^2 + m_y^2 + C1)(v_x + v_y + C2))`.

    Args:
        pred: (B, C, H, W), C = 3 (RGB, each channel apart, then the mean of the three) or 1 (gray), uint8 or float in
            0..255, at least 11 x 11 pixels.
        target: as `pred`.

    Returns:
        (B,) float64, 1 for identical images.

    Raises:
        ValueError: wrong shape, dtype or range.

    Example:
        >>> import torch
        >>> target = torch.arange(0, 240, 15, dtype=torch.uint8).expand(2, 1, 16, 16)
        >>> pred = target.clone()
        >>> pred[0] = 128
        >>> ssim(pred, target)
        tensor([0.1001, 1.0000], dtype=torch.float64)
    """
    x, y = checked_pair(pred, target)
    size = 2 * RADIUS + 1
    if min(x.shape[-2:]) < size:
        raise ValueError(
            f"pred and target are {x.shape[-2]} x {x.shape[-1]} pixels. Expected at least {size} x {size}, the size "
            "of the window. Resize both first"
        )
    xs, ys = ([channel for image in images for channel in image] for images in (x, y))  # flatten would copy them all
    together = max(1, BAND_PIXELS // (x.shape[-2] * x.shape[-1]))  # small images: a call costs more than its pixels
    parts = [slice(first, first + together) for first in range(0, len(xs), together)]
    values = torch.cat([_ssim_of_channels(xs[part], ys[part]) for part in parts])
    return values.reshape(x.shape[:2]).mean(dim=1)


class SSIM(FrameMean):
    r"""Mean over frames of the SSIM of Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13(4), 2004.

    .. math:: \mathrm{SSIM}(p) = \frac{(2 m_x m_y + C_1)(2 c_{xy} + C_2)}{(m_x^2 + m_y^2 + C_1)(v_x + v_y + C_2)}

    * Input: pairs of frames (B, C, H, W), RGB or gray, uint8 or float in 0..255, no resizing inside. As for PSNR, pass
      decoded frames to score a video after encoding.
    * Average: over the pixels where the window fits, then channels, then frames, whatever clip they come from.
    * Reference: scikit-image 0.26 `structural_similarity(..., gaussian_weights=True, sigma=1.5,
      use_sample_covariance=False, data_range=255, channel_axis=-1)` for each frame.
    * Known differences: scikit-image's defaults (uniform 7 x 7 window, sample covariance) and torchmetrics 1.9
      (reflected border, up to 0.016 apart on 160 x 160 faces) give other numbers, and so does gray instead of RGB. The
      authors' later Matlab program first shrinks large images; their paper does not, and this does not.

    Example:
        >>> import torch
        >>> target = torch.arange(0, 240, 15, dtype=torch.uint8).expand(1, 3, 16, 16)
        >>> metric = SSIM()
        >>> metric.update(target, target)
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    higher_is_better = True
    is_differentiable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("ssim_wang2004", **kwargs)

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add the frames of one batch; see `ssim` for the arguments."""
        self.add(ssim(pred, target))


def scorer(clip: ScoredClip) -> Scorer | None:
    """Scores the crops and their mouth regions."""
    return PairScorer("ssim", ssim, 1.0, mouth=True) if clip.paired else None


METRIC = Description(
    columns=(
        Column("ssim", "SSIM", "", True, 3, (-1, 1), "target", "Wang et al., IEEE TIP 13(4), 2004", order=20),
        Column(
            "ssim_mouth",
            "SSIM mouth",
            "",
            True,
            3,
            (-1, 1),
            "target",
            "SSIM of the box around the target's lips",
            order=40,
        ),
    ),
    about={
        "ssim": "How alike the structure of small patches is to that of the real frame; 1 is identical.",
        "ssim_mouth": "SSIM in the box around the lips alone.",
    },
    checked="scikit-image on the same frames, 1e-12; golden arrays, 1e-6",
)

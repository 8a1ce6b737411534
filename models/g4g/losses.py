# SPDX-License-Identifier: Apache-2.0
"""G4G's perceptual loss, and its reconstruction loss inside masks of several sizes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lipsync_bench.models.parts.perceptual import VGGPyramidLoss

__all__ = ["VGGTwoSizesLoss", "masked_l1"]


class VGGTwoSizesLoss(VGGPyramidLoss):
    """Eq. 13 as DINet has it: mean absolute differences of relu1_1, 2_1, 3_1, 4_1 and 5_1 at the full and at half size.

    The mean over the ten, which is the printed divisor of 2 N. The generated image is halved by means over 3 x 3 pixels
    of which the border's lack some, the real one bilinearly.
    """

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        """RGB images (N,3,H,W) in [0, 1], 32 pixels or more -> scalar, differentiable in `generated`."""
        generated, target = ((x - self.mean) / self.std for x in (generated, target))
        halves = (
            F.avg_pool2d(generated, 3, 2, 1, count_include_pad=False),
            F.interpolate(target, scale_factor=0.5, mode="bilinear"),
        )
        terms: list[Tensor] = []
        for made, real in ((generated, target), halves):
            with torch.no_grad():
                wanted = self._maps(real)
            terms += [F.l1_loss(seen, true) for seen, true in zip(self._maps(made), wanted, strict=True)]
        return torch.stack(terms).mean()


def masked_l1(generated: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of images (N,3,H,W) where a mask (N,1,H,W) is 1."""
    return ((generated - target).abs() * mask).sum() / (mask.sum() * generated.shape[1])

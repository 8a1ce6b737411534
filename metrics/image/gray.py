# SPDX-License-Identifier: Apache-2.0
"""The 8-bit gray images that two metrics measure."""

import torch
from torch import Tensor

__all__ = ["gray_8bit"]


def gray_8bit(images: Tensor) -> Tensor:
    """Images (B, C, H, W), 0..255 -> (B, H, W) uint8: rounded half to even, RGB mixed as PIL's mode L does.

    That is `(19595 R + 38470 G + 7471 B + 32768) >> 16`; one channel stays as it is.
    """
    channels = images.round().to(torch.int64).unbind(dim=1)
    if len(channels) == 1:
        return channels[0].to(torch.uint8)
    r, g, b = channels
    return ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16).to(torch.uint8)

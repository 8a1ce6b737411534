# SPDX-License-Identifier: Apache-2.0
"""What metrics of single images demand of them, and the 8-bit gray images that two of them compare."""

import torch
from torch import Tensor

from metrics.image_checks import checked_pair

__all__ = ["checked_images", "gray_8bit"]


def checked_images(name: str, images: Tensor) -> Tensor:
    """One image batch (B, C, H, W) as float64 in 0..255, by the rules and in the words of `checked_pair`.

    Raises:
        ValueError: a shape, dtype or range is not as said, or a value is not finite.
    """
    try:
        return checked_pair(images, images)[0]
    except ValueError as error:
        # The same images took both places there; here they have one name.
        raise ValueError(str(error).replace("pred and target have", f"{name} has").replace("pred", name)) from None


def gray_8bit(images: Tensor) -> Tensor:
    """Images (B, C, H, W), 0..255 -> (B, H, W) uint8: rounded half to even, RGB mixed as PIL's mode L does.

    That is `(19595 R + 38470 G + 7471 B + 32768) >> 16`; one channel stays as it is.
    """
    channels = images.round().to(torch.int64).unbind(dim=1)
    if len(channels) == 1:
        return channels[0].to(torch.uint8)
    r, g, b = channels
    return ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16).to(torch.uint8)

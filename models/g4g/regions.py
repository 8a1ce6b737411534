# SPDX-License-Identifier: Apache-2.0
"""Places on a face of 416 x 320, or of the same shape and another size: what is hidden, where errors count."""

from typing import Literal

import torch
from torch import Tensor

HEIGHT, WIDTH = 416, 320
MOUTH_PX = 256
"""Side of the mouth square, of a face of 416 x 320."""
Mask = Literal["square", "lower_half"]
_CENTRE = (256, 160)  # row, column of the middle of the mouth square

__all__ = ["HEIGHT", "MOUTH_PX", "WIDTH", "Mask", "hidden_part", "square"]


def square(size_hw: tuple[int, int], side_px: int) -> tuple[slice, slice]:
    """Rows and columns of a square about the middle of the mouth; side_px is that on a face of 416 x 320.

    256 are rows 128 to 383 and columns 32 to 287 there.
    """
    height, width = size_hw
    (row, column), half = _CENTRE, side_px / 2
    rows = (round(max(0, edge) * height / HEIGHT) for edge in (row - half, row + half))
    columns = (round(max(0, edge) * width / WIDTH) for edge in (column - half, column + half))
    return slice(*rows), slice(*columns)


def hidden_part(size_hw: tuple[int, int], mask: Mask) -> Tensor:
    """float32 (1, H, W): 1 where the source frame is hidden."""
    hidden = torch.zeros(1, *size_hw)
    if mask == "square":
        rows, columns = square(size_hw, MOUTH_PX)
        hidden[:, rows, columns] = 1
    else:
        hidden[:, size_hw[0] // 2 :] = 1
    return hidden

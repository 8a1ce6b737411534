# SPDX-License-Identifier: Apache-2.0
"""Feature maps sampled between their cells."""

from functools import partial

import torch
from torch import Tensor

__all__ = ["sample_bilinear"]


def sample_bilinear(maps: Tensor, offsets: Tensor) -> Tensor:
    """Bilinear samples of maps at every cell plus its offset; outside, the border's cells go on.

    Written out, because `grid_sample` normalises its coordinates and gives an offset of 0 back inexactly for widths
    that are no powers of two.

    Args:
        maps: (N,C,h,w).
        offsets: (N,2,h,w) in cells, x then y.

    Returns:
        (N,C,h,w), differentiable in both; equal to `maps` for offsets of 0.
    """
    height, width = maps.shape[-2:]
    cell = partial(torch.arange, device=maps.device, dtype=offsets.dtype)
    x = (cell(width) + offsets[:, 0]).clamp(0, width - 1)
    y = (cell(height)[:, None] + offsets[:, 1]).clamp(0, height - 1)
    left, top = x.detach().floor(), y.detach().floor()
    flat = maps.flatten(2)

    def at(column: Tensor, row: Tensor) -> Tensor:
        index = row.clamp(max=height - 1).long() * width + column.clamp(max=width - 1).long()
        return flat.gather(2, index.flatten(1)[:, None].expand(-1, flat.shape[1], -1)).unflatten(2, (height, width))

    right_share, bottom_share = (x - left)[:, None], (y - top)[:, None]
    upper = torch.lerp(at(left, top), at(left + 1, top), right_share.to(maps.dtype))
    lower = torch.lerp(at(left, top + 1), at(left + 1, top + 1), right_share.to(maps.dtype))
    return torch.lerp(upper, lower, bottom_share.to(maps.dtype))

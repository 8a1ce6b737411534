# SPDX-License-Identifier: Apache-2.0
"""LipFormer's adaptive face warping: moves the reference's lower half to where the target's upper half asks for it."""

from functools import partial

import torch
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import scaled

__all__ = ["AdaptiveWarping", "sample_bilinear"]


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


class AdaptiveWarping(nn.Module):
    """M (Eq. 6 and 7): G = F_d(F_e(H_TU) - F_e(H_RU)), then H_RB sampled at every cell plus G.

    F_e gives k heat maps, each a softmax over all positions. The layers of F_e and F_d are a choice of this project, as
    are their channels, the unit of G (cells) and the border; the paper states none of them.

    Args:
        code_channels: d of the encodings.
        width: factor on the hidden channels.
        keypoints: k.
    """

    def __init__(self, code_channels: int = 256, width: float = 1.0, keypoints: int = 16) -> None:
        super().__init__()
        c128, c256 = scaled(128, width), scaled(256, width)
        conv = partial(nn.Conv2d, kernel_size=3, padding=1)
        self.keypoint_encoder = nn.Sequential(
            conv(code_channels, c256), nn.ReLU(), conv(c256, c128), nn.ReLU(), conv(c128, keypoints)
        )
        last = conv(c128, 2)
        nn.init.zeros_(last.weight)  # training starts from the identity
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.offset_decoder = nn.Sequential(conv(keypoints, c128), nn.ReLU(), conv(c128, c128), nn.ReLU(), last)

    def heat_maps(self, upper: Tensor) -> Tensor:
        """F_e: encodings of an upper half (N,d,h,w) -> (N,k,h,w), each map adding up to 1."""
        return self.keypoint_encoder(upper).flatten(2).softmax(dim=2).unflatten(2, upper.shape[-2:])

    def offsets(self, target_upper: Tensor, reference_upper: Tensor) -> Tensor:
        """G (N,2,h,w) in cells, x then y."""
        return self.offset_decoder(self.heat_maps(target_upper) - self.heat_maps(reference_upper))

    def forward(self, target_upper: Tensor, reference_upper: Tensor, reference_bottom: Tensor) -> Tensor:
        """H_TU, H_RU, H_RB, each (N,d,h,w) -> the warped H_RB, of the same shape."""
        return sample_bilinear(reference_bottom, self.offsets(target_upper, reference_upper))

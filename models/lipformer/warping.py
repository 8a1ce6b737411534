# SPDX-License-Identifier: Apache-2.0
"""LipFormer's adaptive face warping: moves the reference's lower half to where the target's upper half asks for it."""

from functools import partial

from torch import Tensor, nn

from lipsync_bench.models.parts.layers import scaled
from lipsync_bench.models.parts.sampling import sample_bilinear

__all__ = ["AdaptiveWarping"]


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

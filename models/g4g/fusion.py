# SPDX-License-Identifier: Apache-2.0
"""The blend net, which turns a composite of the generated face and its source into the result."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import ConvBlock, scaled

__all__ = ["BlendNet", "composite"]


def composite(generated: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """mask * generated + (1 - mask) * source: (N,3,H,W) twice, (N,1,H,W)."""
    return source + mask * (generated - source)


class BlendNet(nn.Module):
    """U-Net on composite and mask; its output is the image itself, not a change of it (3.2).

    The paper gives no layers: levels and channels are a choice, as are the two 3 x 3 convolutions of a level, maximum
    pooling and bilinear enlargement.

    Args:
        levels: sizes, the full one included.
        base: channels of the full size; each level has twice as many as the one before.
        width: factor on the channels.
    """

    def __init__(self, levels: int = 5, base: int = 32, width: float = 1.0) -> None:
        super().__init__()
        channels = [scaled(base << level, width) for level in range(levels)]

        def pair(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(ConvBlock(inputs, outputs, 3, 1, 1), ConvBlock(outputs, outputs, 3, 1, 1))

        self.down = nn.ModuleList(pair(i, o) for i, o in zip([4, *channels], channels, strict=False))
        steps = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.ModuleList(pair(below + skip, skip) for below, skip in steps)
        self.last = nn.Conv2d(channels[0], 3, 1)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Composite (N,3,H,W) and mask (N,1,H,W) -> (N,3,H,W) in [0, 1]."""
        x, skips = torch.cat([image, mask], dim=1), []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for block in self.up:
            skip = skips.pop()
            x = block(torch.cat([F.interpolate(x, skip.shape[-2:], mode="bilinear"), skip], dim=1))
        return self.last(x).sigmoid()

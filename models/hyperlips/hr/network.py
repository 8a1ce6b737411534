# SPDX-License-Identifier: Apache-2.0
"""The generator of HyperLips' second stage, which sharpens a base face after a sketch of its landmarks."""

from typing import Literal

from torch import Tensor, nn

from lipsync_bench.models.parts.layers import ConvBlock, ResidualBlock, TransposedBlock, scaled

__all__ = ["HRDecoder"]


class HRDecoder(nn.Module):
    """Base face and sketch -> the face at 1, 2 or 4 times the size.

    ```
    (N,6,h,w) - conv_base - 64@h - up_conv - 64@scale*h - output_block - (N,3,scale*h,scale*w)
    ```

    Args:
        scale: size of the output over that of the input.
        width: factor on the channels; 1.0 is published.

    Raises:
        ValueError: another scale.
    """

    def __init__(self, scale: Literal[1, 2, 4] = 1, width: float = 1.0) -> None:
        super().__init__()
        if scale not in (1, 2, 4):
            raise ValueError(f"HRDecoder: scale is {scale}. Expected 1, 2 or 4. Set --model.init_args.scale.")
        self.scale = scale
        c32, c64 = scaled(32, width), scaled(64, width)
        self.conv_base = nn.Sequential(ConvBlock(6, c64, 3, 1, 1), ResidualBlock(c64))
        blocks: list[nn.Module] = []
        for _ in range(max(1, scale // 2)):
            if scale > 1:
                blocks.append(TransposedBlock(c64, c64, 3, 2, 1, 1))  # doubles height and width
            blocks += [ResidualBlock(c64), ResidualBlock(c64)]
        self.up_conv = nn.Sequential(*blocks)
        self.output_block = nn.Sequential(ConvBlock(c64, c32, 3, 1, 1), nn.Conv2d(c32, 3, 1), nn.Sigmoid())

    def forward(self, faces: Tensor) -> Tensor:
        """(N,6,h,w) in [0, 1], channels 0-2 a BGR face, 3-5 a sketch -> (N,3,scale*h,scale*w) in [0, 1]."""
        return self.output_block(self.up_conv(self.conv_base(faces)))

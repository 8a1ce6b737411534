# SPDX-License-Identifier: Apache-2.0
"""The discriminators of HyperLips' two stages. No normalisation layers."""

import torch
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import PlainBlock, Size, scaled, to_time_major

__all__ = ["BaseDiscriminator", "HRDiscriminator"]


def _pair(inputs: int, outputs: int, kernel: int, stride: Size) -> nn.Sequential:
    padding = kernel // 2
    return nn.Sequential(
        PlainBlock(inputs, outputs, kernel, stride, padding), PlainBlock(outputs, outputs, kernel, 1, padding)
    )


class _Discriminator(nn.Module):
    """Blocks that end in a mean over the map, and one logit an image."""

    def __init__(self, blocks: list[nn.Module], channels: int) -> None:
        super().__init__()
        self.face_encoder_blocks = nn.ModuleList([*blocks, nn.AdaptiveAvgPool2d(1)])
        self.binary_pred = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def features(self, faces: Tensor) -> Tensor:
        """(N,C,1,1), before the last layer."""
        for block in self.face_encoder_blocks:
            faces = block(faces)
        return faces

    def logit(self, faces: Tensor) -> Tensor:
        """(N,1), before the sigmoid."""
        return self.binary_pred[0](self.features(faces)).flatten(1)

    def forward(self, faces: Tensor) -> Tensor:
        """(N,1), the probability that a face is real."""
        return torch.sigmoid(self.logit(faces))


class BaseDiscriminator(_Discriminator):
    """Says whether the lower halves of a window's faces look real: windows (B,3,T,H,W) in [0, 1] -> (T*B,1).

    Wav2Lip's discriminator followed by a mean; published for 128 x 128.

    Args:
        width: factor on the channels; 1.0 is published.
    """

    def __init__(self, width: float = 1.0) -> None:
        c32, c64, c128, c256, c512 = (scaled(channels, width) for channels in (32, 64, 128, 256, 512))
        blocks: list[nn.Module] = [
            nn.Sequential(PlainBlock(3, c32, 7, 1, 3)),  # 64 x 128
            _pair(c32, c64, 5, (1, 2)),  # 64 x 64
            _pair(c64, c128, 5, 2),  # 32
            _pair(c128, c256, 5, 2),  # 16
            _pair(c256, c512, 3, 2),  # 8
            _pair(c512, c512, 3, 2),  # 4
            nn.Sequential(PlainBlock(c512, c512, 3), PlainBlock(c512, c512, 1)),  # 2
        ]
        super().__init__(blocks, c512)

    def features(self, faces: Tensor) -> Tensor:
        """(B,3,T,H,W) -> (T*B,512,1,1), before the last layer."""
        x = to_time_major(faces, 2)
        return super().features(x[:, :, x.shape[2] // 2 :])


class HRDiscriminator(_Discriminator):
    """Says whether whole faces of any size look real: (N,3,H,W) in [0, 1] -> (N,1).

    Args:
        width: factor on the channels; 1.0 is published.
    """

    def __init__(self, width: float = 1.0) -> None:
        c32, c64, c128 = (scaled(channels, width) for channels in (32, 64, 128))
        blocks: list[nn.Module] = [
            nn.Sequential(PlainBlock(3, c32, 7, 1, 3)),  # 128 x 128
            _pair(c32, c64, 5, 2),  # 64
            _pair(c64, c128, 5, 2),  # 32
            _pair(c128, c128, 5, 2),  # 16
            _pair(c128, c128, 3, 2),  # 8
        ]
        super().__init__(blocks, c128)

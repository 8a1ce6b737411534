# SPDX-License-Identifier: Apache-2.0
"""Building blocks of DINet's family: encoders to a quarter of the size, residual blocks, decoder, alignments."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import ConvBlock, scaled

__all__ = [
    "AdaINBlock",
    "AlignmentConvs",
    "Decoder",
    "IntraModalAlignment",
    "PreActivationBlock",
    "adaptive_instance_norm",
    "image_encoder",
]


def image_encoder(inputs: int, width: float) -> nn.Sequential:
    """Images (N, inputs, H, W) -> (N, 256 * width, H / 4, W / 4).

    The paper gives no layers; they are DINet's.
    """
    c64, c128, c256 = (scaled(channels, width) for channels in (64, 128, 256))
    return nn.Sequential(ConvBlock(inputs, c64, 7, 1, 3), ConvBlock(c64, c128, 3, 2, 1), ConvBlock(c128, c256, 3, 2, 1))


class PreActivationBlock(nn.Module):
    """x + conv(ReLU(BN(conv(ReLU(BN(x)))))), 3 x 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1),
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, 1, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Decoder(nn.Module):
    """Features (N, inputs, H/4, W/4) -> images (N,3,H,W) in [0, 1]. The layers are DINet's."""

    def __init__(self, inputs: int, width: float) -> None:
        super().__init__()
        c128 = scaled(128, width)
        self.layers = nn.Sequential(
            ConvBlock(inputs, c128, 3, 1, 1),
            nn.Upsample(scale_factor=2), ConvBlock(c128, c128, 3, 1, 1), PreActivationBlock(c128),
            nn.Upsample(scale_factor=2), ConvBlock(c128, c128, 3, 1, 1),
            nn.Conv2d(c128, 3, 7, 1, 3),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features).sigmoid()


def adaptive_instance_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Eq. 5: each channel of x (N,C,h,w) by its own mean and deviation, then times scale plus shift, (N,C) each."""
    return F.instance_norm(x) * scale[..., None, None] + shift[..., None, None]


class AdaINBlock(nn.Module):
    """x + conv(ReLU(AdaIN(conv(ReLU(AdaIN(x)))))), 3 x 3, scale and shift of fully connected layers on a vector.

    The norm comes before each convolution (choice): behind the last one it would leave nothing in the mean over the
    map, which is all that is read of it, but the shift.
    """

    def __init__(self, channels: int, vector: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(2))
        self.styles = nn.ModuleList(nn.Linear(vector, 2 * channels) for _ in range(2))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        y = x
        for conv, style in zip(self.convs, self.styles, strict=True):
            scale, shift = style(vector).chunk(2, dim=1)
            y = conv(F.relu(adaptive_instance_norm(y, 1 + scale, shift)))
        return x + y


class IntraModalAlignment(nn.Module):
    """Source and references joined by a 1 x 1 convolution, then aligned by AdaIN from the landmarks (3.1.1).

    The paper writes the features as vectors and the convolution as one-dimensional; here they are maps (choice), and
    `forward` gives the mean over the aligned map.

    Args:
        channels: of the maps.
        vector: length of the landmarks' feature.
        blocks: residual blocks; the paper gives no number.
    """

    def __init__(self, channels: int, vector: int, blocks: int = 2) -> None:
        super().__init__()
        self.join = nn.Conv2d(2 * channels, channels, 1)
        self.blocks = nn.ModuleList(AdaINBlock(channels, vector) for _ in range(blocks))

    def forward(self, source: Tensor, references: Tensor, landmarks: Tensor) -> Tensor:
        """Maps (N,C,h,w) twice, vector (N,V) -> the aligned feature (N,C)."""
        x = self.join(torch.cat([source, references], dim=1))
        for block in self.blocks:
            x = block(x, landmarks)
        return x.mean(dim=(2, 3))


class AlignmentConvs(nn.Module):
    """What DINet has in the place of the alignment, and G4G's Table 2 as "without alignment": plain convolutions."""

    def __init__(self, channels: int, width: float) -> None:
        super().__init__()
        c128 = scaled(128, width)
        down = (3, 2, 1)
        kernels = [
            (3, 1, 1),
            (11, 1, 5),
            (11, 1, 5),
            down,
            (7, 1, 3),
            (7, 1, 3),
            down,
            (3, 1, 1),
            down,
            (3, 1, 1),
            down,
        ]
        inputs = [2 * channels] + [c128] * (len(kernels) - 1)
        self.layers = nn.Sequential(*(ConvBlock(i, c128, *kernel) for i, kernel in zip(inputs, kernels, strict=True)))

    def forward(self, source: Tensor, references: Tensor) -> Tensor:
        """Maps (N,C,h,w) twice -> (N, 128 * width)."""
        return self.layers(torch.cat([source, references], dim=1)).mean(dim=(2, 3))

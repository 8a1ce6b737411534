# SPDX-License-Identifier: Apache-2.0
"""Building blocks and tensor arrangements that the Wav2Lip family of networks has in common.

Every block keeps its layers in the attribute `conv_block`, which gives the state-dict names of the official
checkpoints. Batch norm and initialisation are the framework's defaults, as in the official code.
"""

import torch.nn.functional as F
from torch import Tensor, nn

Size = int | tuple[int, int]

__all__ = [
    "ConvBlock",
    "PlainBlock",
    "ResidualBlock",
    "Size",
    "TransposedBlock",
    "audio_encoder",
    "from_time_major",
    "mask_lower_half",
    "scaled",
    "stack_lower_halves",
    "to_time_major",
]


def scaled(channels: int, width: float) -> int:
    """Channels of a layer at this width; 1.0 gives the published number, and no layer gets fewer than 8."""
    if width <= 0:
        raise ValueError(
            f"width is {width}. Expected a positive factor (1.0 = published). Set --model.init_args.width."
        )
    return max(8, round(channels * width))


class ConvBlock(nn.Module):
    """ReLU(BN(conv(x)))."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: Size = 1, padding: Size = 0) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, padding),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv_block(x))


class ResidualBlock(nn.Module):
    """ReLU(BN(conv 3x3(x)) + x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv_block(x) + x)


class TransposedBlock(nn.Module):
    """ReLU(BN(transposed conv(x)))."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Size, stride: Size = 1, padding: Size = 0, output_padding: Size = 0
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, output_padding),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv_block(x))


class PlainBlock(nn.Module):
    """LeakyReLU(0.01)(conv(x)), without normalisation (discriminators)."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: Size = 1, padding: Size = 0) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv_block(x), 0.01)


def audio_encoder(width: float = 1.0, last_residuals: int = 1) -> nn.Sequential:
    """Mel window (N, 1, 80, 16) -> (N, 512 * width, 1, 1).

    Args:
        width: factor on the channels.
        last_residuals: residual blocks at 256 channels; generators have one, lip-sync experts two.
    """
    c32, c64, c128, c256, c512 = (scaled(channels, width) for channels in (32, 64, 128, 256, 512))
    return nn.Sequential(
        ConvBlock(1, c32, 3, 1, 1),  # 80 x 16
        ResidualBlock(c32),
        ResidualBlock(c32),
        ConvBlock(c32, c64, 3, (3, 1), 1),  # 27 x 16
        ResidualBlock(c64),
        ResidualBlock(c64),
        ConvBlock(c64, c128, 3, 3, 1),  # 9 x 6
        ResidualBlock(c128),
        ResidualBlock(c128),
        ConvBlock(c128, c256, 3, (3, 2), 1),  # 3 x 3
        *(ResidualBlock(c256) for _ in range(last_residuals)),
        ConvBlock(c256, c512, 3),  # 1 x 1
        ConvBlock(c512, c512, 1),
    )


def to_time_major(x: Tensor, time: int) -> Tensor:
    """(B, ..., T, ...) -> (T*B, ...), all of frame 0 first, as official networks do; `time` is the axis of T."""
    return x.movedim(time, 0).flatten(0, 1)


def from_time_major(x: Tensor, frames: int) -> Tensor:
    """(T*B, C, H, W) -> (B, C, T, H, W)."""
    return x.unflatten(0, (frames, -1)).permute(1, 2, 0, 3, 4)


def mask_lower_half(images: Tensor) -> Tensor:
    """A copy of (..., H, W) images whose rows H//2 and below are 0: the pose prior that hides the mouth."""
    masked = images.clone()
    masked[..., images.shape[-2] // 2 :, :] = 0
    return masked


def stack_lower_halves(frames: Tensor) -> Tensor:
    """(B, T, 3, H, W) -> (B, 3T, H/2, W): lower halves, frame after frame on the channel axis, as experts read them."""
    return frames[..., frames.shape[-2] // 2 :, :].flatten(1, 2)

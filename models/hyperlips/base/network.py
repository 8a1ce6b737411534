# SPDX-License-Identifier: Apache-2.0
"""The generator of HyperLips' first stage."""

from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.hyperlips.base.encoder import LRASPP, MobileNetV3Encoder, Taps
from lipsync_bench.models.hyperlips.base.hyperconv import HyperControlNet
from lipsync_bench.models.parts.layers import ConvBlock, ResidualBlock, from_time_major, scaled, to_time_major

_FACE_CHANNELS = 6

__all__ = ["ConvGRU", "HyperLipsBaseGenerator"]


class ConvGRU(nn.Module):
    """One step of a convolutional GRU whose hidden state is zero: (N,C,H,W) -> (N,C,H,W).

    With h = 0 the published step h' = (1 - z) h + z c, c = tanh(hh(x, r h)) becomes z c. The reset gate r and all
    weights on h stay in the state dict, have no influence, and get a gradient of zero.

    Args:
        channels: of x and of h.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.ih = nn.Sequential(nn.Conv2d(2 * channels, 2 * channels, 3, padding=1), nn.Sigmoid())
        self.hh = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, padding=1), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        c = self.channels
        gates, candidate = cast(nn.Conv2d, self.ih[0]), cast(nn.Conv2d, self.hh[0])
        assert gates.bias is not None  # for the type checker
        update = torch.sigmoid(F.conv2d(x, gates.weight[c:, :c], gates.bias[c:], padding=1))
        return update * torch.tanh(F.conv2d(x, candidate.weight[:, :c], candidate.bias, padding=1))


def _gate_second_half(x: Tensor, gru: ConvGRU) -> Tensor:
    kept, gated = x.split([x.shape[1] - gru.channels, gru.channels], dim=1)
    return torch.cat([kept, gru(gated)], dim=1)


def _up_to(x: Tensor, size_of: Tensor) -> Tensor:
    """Doubles a map, then cuts it to the height and width of another: pooled sizes were rounded up."""
    up = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return up[..., : size_of.shape[-2], : size_of.shape[-1]]


class _Bottleneck(nn.Module):
    """(N,C,H,W) -> (N,C,H,W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gru = ConvGRU(channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        return _gate_second_half(x, self.gru)


class _Stage(nn.Module):
    """Doubles a map and takes in the map and the small image of that size."""

    def __init__(self, below: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(below + skip + _FACE_CHANNELS, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.gru = ConvGRU(outputs // 2)

    def forward(self, x: Tensor, skip: Tensor, image: Tensor) -> Tensor:
        return _gate_second_half(self.conv(torch.cat([_up_to(x, image), skip, image], dim=1)), self.gru)


class _LastStage(nn.Module):
    """Doubles a map and takes in the image itself."""

    def __init__(self, below: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(below + _FACE_CHANNELS, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        return self.conv(torch.cat([_up_to(x, image), image], dim=1))


class _Decoder(nn.Module):
    """Image (N,6,H,W) and four maps at H/2 to H/16 -> (N,64,H,W)."""

    def __init__(self, width: float) -> None:
        super().__init__()
        c = partial(scaled, width=width)
        self.decode4 = _Bottleneck(c(128))
        self.decode3 = _Stage(c(128), c(40), c(80))
        self.decode2 = _Stage(c(80), c(24), c(40))
        self.decode1 = _Stage(c(40), c(16), c(32))
        self.decode0 = _LastStage(c(32), c(64))

    def forward(self, image: Tensor, maps: Taps) -> Tensor:
        half, quarter, eighth, sixteenth = maps
        images = [image]
        for _ in range(3):
            images.append(F.avg_pool2d(images[-1], 2, ceil_mode=True))  # an edge cell has the mean of what it covers
        x = self.decode4(sixteenth)  # 8 x 8 for 128 x 128
        x = self.decode3(x, eighth, images[3])  # 16
        x = self.decode2(x, quarter, images[2])  # 32
        x = self.decode1(x, half, images[1])  # 64
        return self.decode0(x, images[0])  # 128


class HyperLipsBaseGenerator(nn.Module):
    """Encodes a face, convolves its maps with kernels that are computed from the audio, and decodes them.

    ```
    face (N,6,H,W) - face_encoder - 16, 24, 40, 960 - aspp - 128 -+
    audio (N,1,80,16) --------------------------------------------+- hyper_control_net - 16, 24, 40, 128
                                  face and these maps - decoder - 64 - up_conv - output_block - (N,3,H,W)
    ```
    Any height and width work; the published ones are 128.

    Args:
        width: factor on the channels; 1.0 is published.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.width = width
        c32, c64, c128 = (scaled(channels, width) for channels in (32, 64, 128))
        self.up_conv = nn.Sequential(ResidualBlock(c64), ResidualBlock(c64))
        self.output_block = nn.Sequential(ConvBlock(c64, c32, 3, 1, 1), nn.Conv2d(c32, 3, 1), nn.Sigmoid())
        self.face_encoder = MobileNetV3Encoder(_FACE_CHANNELS, width)
        self.aspp = LRASPP(self.face_encoder.channels[-1], c128)
        self.hyper_control_net = HyperControlNet(width)
        self.decoder = _Decoder(width)

    def forward(self, audio: Tensor, faces: Tensor) -> Tensor:
        """Faces in [0, 1], of the same rank as the input.

        Args:
            audio: (B,1,80,16) or (B,T,1,80,16).
            faces: (B,6,H,W) or (B,6,T,H,W) BGR in [0, 1]: channels 0-2 the frame with its lower half zeroed, 3-5 a
                reference.

        Returns:
            (B,3,H,W) or (B,3,T,H,W); frames of a window do not see each other.

        Raises:
            ValueError: the mels have another shape.
        """
        frames = faces.shape[2] if faces.ndim == 5 else None
        if frames is not None:
            audio, faces = to_time_major(audio, 1), to_time_major(faces, 2)
        c0, c1, c2, top = self.face_encoder(faces)
        maps = self.hyper_control_net(audio, (c0, c1, c2, self.aspp(top)))
        x = self.output_block(self.up_conv(self.decoder(faces, maps)))
        return x if frames is None else from_time_major(x, frames)

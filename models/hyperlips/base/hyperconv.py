# SPDX-License-Identifier: Apache-2.0
"""Convolutions whose kernels are computed from the audio: the part of HyperLips that moves the lips.

HyperLips, section III-A1 (https://arxiv.org/abs/2310.05720), after Ha, Dai, Le: HyperNetworks. ICLR 2017
(https://arxiv.org/abs/1609.09106). A mel becomes a code, the code becomes the kernels that the maps of the face are
convolved with: each sample of a batch has kernels of its own.

Differs: the paper has a mel of 16 x 80 in III-A1 and one of 80 x 60 in VI-B, which is taken for a misprint; here it is
80 bands by 16 steps, as released.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.hyperlips.base.encoder import LRASPP, MobileNetV3Encoder, Taps
from lipsync_bench.models.parts.layers import scaled

_MEL_SHAPE = (1, 80, 16)  # channel, bands, steps
_MEL_CELLS = (40 * 8, 20 * 4, 10 * 2, 5 * 1)  # size of the audio encoder's maps for such a mel

__all__ = ["HyperControlNet", "HyperConv", "HyperNet"]


class HyperConv(nn.Module):
    """A 3x3 convolution that keeps the size, with kernel and bias of sample n computed from code n.

    Args:
        channels: of the map, in and out.
        code: length of the code.
    """

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        self.channels = channels
        self.hyperkernel = nn.Linear(code, channels * channels * 9)
        self.hyperbias = nn.Linear(code, channels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(N,C,H,W) for codes (N,E) -> (N,C,H,W)."""
        samples, c = len(x), self.channels
        kernels = self.hyperkernel(code).reshape(samples * c, c, 3, 3)  # output, input channel, row, column
        bias = self.hyperbias(code).flatten()
        # One convolution for the batch: the samples are groups of channels.
        y = F.conv2d(x.reshape(1, samples * c, *x.shape[2:]), kernels, bias, padding=1, groups=samples)
        return y.reshape(x.shape)


class HyperNet(nn.Module):
    """Code (N,E) of an audio map, which is flattened in the order channel, band, step."""

    def __init__(self, inputs: int, code: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(inputs, code)
        self.lin2 = nn.Linear(code, code)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) with C H W = inputs -> (N,E)."""
        x = F.leaky_relu(self.lin1(x.flatten(1)), 0.01)
        return F.leaky_relu(self.lin2(x), 0.01)


class _HyperBlock(nn.ModuleList):
    """sigmoid(BN(hyper-conv(ReLU(BN(hyper-conv(x)))))), both hyper-convs with the same code."""

    def __init__(self, channels: int, code: int) -> None:
        super().__init__(
            [
                HyperConv(channels, code),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                HyperConv(channels, code),
                nn.BatchNorm2d(channels),
                nn.Sigmoid(),
            ]
        )

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, code) if isinstance(layer, HyperConv) else layer(x)
        return x


class HyperControlNet(nn.Module):
    """Replaces the four maps of a face by maps that depend on the audio as well.

    ```
    mel (N,1,80,16) - audio_encoder - 16@40x8, 24@20x4, 40@10x2, 960@5x1 - aspp_a - 128@5x1
                                         each - hnet0..3 - code (N,64) -+
    maps of the face 16, 24, 40, 128 channels -------------------------- dconv_down0..3 - maps of the same shapes
    ```

    Args:
        width: factor on the channels and on the length of the codes; 1.0 is published.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.audio_encoder = MobileNetV3Encoder(1, width)
        *channels, top = self.audio_encoder.channels
        channels.append(scaled(128, width))
        code = scaled(64, width)
        self.aspp_a = LRASPP(top, channels[-1])
        # Attributes rather than lists, for the official names.
        self.hnet0, self.hnet1, self.hnet2, self.hnet3 = (
            HyperNet(c * cells, code) for c, cells in zip(channels, _MEL_CELLS, strict=True)
        )
        self.dconv_down0, self.dconv_down1, self.dconv_down2, self.dconv_down3 = (
            _HyperBlock(c, code) for c in channels
        )

    def forward(self, audio: Tensor, faces: Taps) -> Taps:
        """Four maps in (0, 1), each of the shape of its map of the face.

        Args:
            audio: (N,1,80,16), 80 mel bands by 16 steps.
            faces: maps (N,16,.,.), (N,24,.,.), (N,40,.,.), (N,128,.,.).

        Raises:
            ValueError: the mels have another shape, or are not as many as the faces. Unchecked, a mel of (1,16,80)
                would run: the flattened lengths are the same.
        """
        expected = (len(faces[0]), *_MEL_SHAPE)
        if tuple(audio.shape) != expected:
            raise ValueError(
                f"HyperLips: audio is {tuple(audio.shape)} after windows are flattened. Expected {expected}, one mel "
                "of 80 bands by 16 steps a face. Use lipsync_bench.datamodules.media.audio.frame_mels"
            )
        first, second, third, fourth = self.audio_encoder(audio)
        c0, c1, c2, c3 = faces
        return (
            self.dconv_down0(c0, self.hnet0(first)),
            self.dconv_down1(c1, self.hnet1(second)),
            self.dconv_down2(c2, self.hnet2(third)),
            self.dconv_down3(c3, self.hnet3(self.aspp_a(fourth))),
        )

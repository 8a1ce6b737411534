# SPDX-License-Identifier: Apache-2.0
"""Fast Fourier convolutions, steered by audio: the residual blocks of VideoReTalking's L-Net.

Lu Chi, Borui Jiang, Yadong Mu: Fast Fourier Convolution. NeurIPS 2020. The channels of a map are split: a local part
that is convolved as usual, and a global part that is convolved in the frequency domain, where every value depends on
the whole image. The split, the layers and their names are those of L-Net's official weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.videoretalking.blocks import AdaIN

_GLOBAL_SHARE = 0.75
_SLOPE = 0.01  # everywhere else in L-Net 0.1: the official blocks are built without the network's own activation

__all__ = ["FFC", "FFCResidualBlock", "FFCUnit", "FourierUnit", "SpectralTransform"]


class FourierUnit(nn.Module):
    """1x1 convolution, batch norm and ReLU on the two-dimensional spectrum of a map.

    The transforms are computed in float32 (float64 for a float64 map), also under autocast: half precision has none for
    sizes that are no powers of two, and bfloat16 none at all. The result has the dtype of the input.

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,C,H,W)."""
        exact = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.view_as_real(torch.fft.rfft2(x.to(exact), norm="ortho"))  # (N,C,H,W/2+1,2)
        planes = spectrum.movedim(-1, 2).flatten(1, 2).to(x.dtype)  # real and imaginary part take turns
        planes = F.relu(self.bn(self.conv_layer(planes)))
        with torch.autocast(x.device.type, enabled=False):
            pairs = planes.to(exact).unflatten(1, (-1, 2)).movedim(2, -1).contiguous()
            # One axis after the other: the spectrum is no longer that of a real image, for which the inverse in one go
            # may give one thing on CPUs and another on GPUs.
            columns = torch.fft.ifft(torch.view_as_complex(pairs), dim=-2, norm="ortho")
            return torch.fft.irfft(columns, n=x.shape[-1], dim=-1, norm="ortho").to(x.dtype)


class SpectralTransform(nn.Module):
    """conv2(s + fu(s)) with s = ReLU(BN(conv1(x))): the global path, at half the channels inside.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Sequential(nn.Conv2d(channels, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.fu = FourierUnit(half)
        self.conv2 = nn.Conv2d(half, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,C,H,W)."""
        x = self.conv1(x)
        return self.conv2(x + self.fu(x))


class FFC(nn.Module):
    """Both parts from both parts: 3x3 convolutions (reflect padding), only global to global a spectral transform.

    Args:
        local: channels of the local part.
        distant: channels of the global part.
    """

    def __init__(self, local: int, distant: int) -> None:
        super().__init__()
        self.convl2l = nn.Conv2d(local, local, 3, bias=False)
        self.convl2g = nn.Conv2d(local, distant, 3, bias=False)
        self.convg2l = nn.Conv2d(distant, local, 3, bias=False)
        self.convg2g = SpectralTransform(distant)

    def forward(self, local: Tensor, distant: Tensor) -> tuple[Tensor, Tensor]:
        """Local (N,L,H,W) and global (N,G,H,W) part -> the same."""
        # Padded once for the two convolutions that read each part.
        padded_local, padded_distant = (F.pad(x, (1, 1, 1, 1), mode="reflect") for x in (local, distant))
        return (
            self.convl2l(padded_local) + self.convg2l(padded_distant),
            self.convl2g(padded_local) + self.convg2g(distant),
        )


class FFCUnit(nn.Module):
    """FFC, then AdaIN and leaky ReLU on either part.

    Args:
        local: channels of the local part.
        distant: channels of the global part.
        code: length of the audio code.
        hidden: of AdaIN.
    """

    def __init__(self, local: int, distant: int, code: int, hidden: int) -> None:
        super().__init__()
        self.ffc = FFC(local, distant)
        self.bn_l = AdaIN(local, code, hidden)
        self.bn_g = AdaIN(distant, code, hidden)

    def forward(self, local: Tensor, distant: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Local (N,L,H,W), global (N,G,H,W), audio (N,code) -> local, global."""
        local, distant = self.ffc(local, distant)
        return F.leaky_relu(self.bn_l(local, code), _SLOPE), F.leaky_relu(self.bn_g(distant, code), _SLOPE)


class FFCResidualBlock(nn.Module):
    """Two FFC units and the identity; no activation after the sum.

    Args:
        channels: C; the last int(0.75 C) are the global part.
        code: length of the audio code.
        hidden: of AdaIN.
    """

    def __init__(self, channels: int, code: int, hidden: int) -> None:
        super().__init__()
        distant = int(_GLOBAL_SHARE * channels)
        self.split = (channels - distant, distant)
        self.conv1 = FFCUnit(*self.split, code, hidden)
        self.conv2 = FFCUnit(*self.split, code, hidden)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(N,C,H,W) and (N,code) -> (N,C,H,W)."""
        local, distant = x.split(self.split, dim=1)
        local, distant = self.conv1(local, distant, code)
        return x + torch.cat(self.conv2(local, distant, code), dim=1)

# SPDX-License-Identifier: Apache-2.0
"""The encoder of HyperLips, for faces and for mels: MobileNetV3-Large at output stride 16, and LR-ASPP.

Howard et al.: Searching for MobileNetV3. ICCV 2019 (table 1; section 6.4 for LR-ASPP). https://arxiv.org/abs/1905.02244
With the changes of Lin et al.: Robust High-Resolution Video Matting with Temporal Guidance. WACV 2022
(https://arxiv.org/abs/2108.11515): four taps, dilation instead of the last stride.
"""

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation

from lipsync_bench.models.parts.layers import scaled

Taps = tuple[Tensor, Tensor, Tensor, Tensor]

__all__ = ["LRASPP", "MobileNetV3Encoder", "Taps"]


class _Spec(NamedTuple):
    """A line of the layer table, in published channels; `squeeze` 0 means no squeeze-and-excitation."""

    inputs: int
    kernel: int
    expanded: int
    outputs: int
    squeeze: int
    activation: type[nn.Module]
    stride: int = 1
    dilation: int = 1


_R, _H = nn.ReLU, nn.Hardswish
_BLOCKS = (
    _Spec(16, 3, 16, 16, 0, _R),  # 1: tap 0
    _Spec(16, 3, 64, 24, 0, _R, 2),
    _Spec(24, 3, 72, 24, 0, _R),  # 3: tap 1
    _Spec(24, 5, 72, 40, 24, _R, 2),
    _Spec(40, 5, 120, 40, 32, _R),
    _Spec(40, 5, 120, 40, 32, _R),  # 6: tap 2
    _Spec(40, 3, 240, 80, 0, _H, 2),
    _Spec(80, 3, 200, 80, 0, _H),
    _Spec(80, 3, 184, 80, 0, _H),
    _Spec(80, 3, 184, 80, 0, _H),
    _Spec(80, 3, 480, 112, 120, _H),
    _Spec(112, 3, 672, 112, 168, _H),
    _Spec(112, 5, 672, 160, 168, _H, 1, 2),
    _Spec(160, 5, 960, 160, 240, _H, 1, 2),
    _Spec(160, 5, 960, 160, 240, _H, 1, 2),  # 15
)
_TAPS = (1, 3, 6, 16)


class _InvertedResidual(nn.Module):
    """Expand 1x1, depthwise k x k, squeeze-and-excitation, project 1x1; plus the input where shapes agree.

    torchvision's class of the same purpose decides by the channels at hand what to leave out, so that a narrow network
    would lose layers; here the published channels decide.
    """

    def __init__(self, spec: _Spec, width: float) -> None:
        super().__init__()
        inputs, expanded, outputs = (scaled(c, width) for c in (spec.inputs, spec.expanded, spec.outputs))
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
        conv = partial(Conv2dNormActivation, norm_layer=norm, activation_layer=spec.activation)
        layers: list[nn.Module] = []
        if spec.expanded != spec.inputs:
            layers.append(conv(inputs, expanded, 1))
        layers.append(conv(expanded, expanded, spec.kernel, spec.stride, dilation=spec.dilation, groups=expanded))
        if spec.squeeze:
            squeeze = scaled(spec.squeeze, width)
            layers.append(SqueezeExcitation(expanded, squeeze, scale_activation=nn.Hardsigmoid))
        layers.append(conv(expanded, outputs, 1, activation_layer=None))
        self.block = nn.Sequential(*layers)
        self.residual = spec.stride == 1 and spec.inputs == spec.outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return x + y if self.residual else y


class MobileNetV3Encoder(nn.Module):
    """Four maps of an image, at a half, a quarter, an eighth and a sixteenth of its size (rounded up).

    The image is not normalised. Trained from scratch; the first layer has the framework's initialisation and batch norm
    constants, all others MobileNet's, as in the official code, which replaces that layer after initialising.

    Args:
        inputs: channels of the image; 6 for faces, 1 for mels.
        width: factor on the channels; 1.0 is published.
    """

    def __init__(self, inputs: int, width: float = 1.0) -> None:
        super().__init__()
        last, top = _BLOCKS[-1].outputs, 960
        self.features = nn.Sequential(
            Conv2dNormActivation(inputs, scaled(16, width), stride=2, activation_layer=nn.Hardswish),
            *(_InvertedResidual(spec, width) for spec in _BLOCKS),
            Conv2dNormActivation(
                scaled(last, width),
                scaled(top, width),
                kernel_size=1,
                norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01),
                activation_layer=nn.Hardswish,
            ),
        )
        self.channels = tuple(scaled(c, width) for c in (16, 24, 40, top))
        for layer in self.features[1:].modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Taps:
        """Maps of 16, 24, 40 and 960 channels for (N,C,H,W) in [0, 1] or a mel."""
        taps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in _TAPS:
                taps.append(x)
        first, second, third, fourth = taps
        return first, second, third, fourth


class LRASPP(nn.Module):
    """ReLU(BN(conv 1x1(x))) * sigmoid(conv 1x1(mean of x))."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.aspp1 = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
        self.aspp2 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,C',H,W)."""
        return self.aspp1(x) * self.aspp2(x)

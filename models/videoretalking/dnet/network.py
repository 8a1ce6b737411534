# SPDX-License-Identifier: Apache-2.0
"""D-Net, the network of VideoReTalking that gives a face another expression: mapping, warping, editing.

Layers, names and constants are those of the official weights (DNet.pt). It is the network of Ren, Li, Chen, Li, Liu:
PIRenderer: Controllable Portrait Image Generation via Semantic Neural Rendering. ICCV 2021.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import scaled
from lipsync_bench.models.videoretalking.blocks import (
    SLOPE,
    AdaIN,
    ConvBlock,
    DownBlock,
    LayerNorm2d,
    Sides,
    SteeredBlocks,
    UpBlock,
    plain_conv,
)

COEFFICIENTS = 73
"""Of a frame: 64 of the expression, 3 angles, 3 of the translation, 3 of the crop."""
FEWEST_FRAMES = 25
"""Of a window of coefficients, which the mapping's convolutions shorten to one value."""
_SIDES = Sides(multiple_of=32, least=64, published=256)
_FIRST_KERNEL = 7
_SHORTER = 3  # what a dilated convolution takes off at each end of a window
_MAPPINGS = 3
_LEVELS = 3  # of the editing network
_HOURGLASS = (32, 64, 128, 256, 256, 256)
_EDITING = (64, 128, 256, 256)
_FLOW_LEVEL = 2  # the flow's size is a quarter of the image's

__all__ = ["COEFFICIENTS", "FEWEST_FRAMES", "DNet"]


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


class _MappingNet(nn.Module):
    """A window of coefficients (N,73,T) becomes one descriptor (N,256,1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(COEFFICIENTS, channels, _FIRST_KERNEL))
        for index in range(_MAPPINGS):
            conv = nn.Conv1d(channels, channels, 3, dilation=_SHORTER)
            self.add_module(f"encoder{index}", nn.Sequential(nn.LeakyReLU(SLOPE), conv))

    def forward(self, coeff: Tensor) -> Tensor:
        x = self.first(coeff)
        for index in range(_MAPPINGS):
            x = getattr(self, f"encoder{index}")(x) + x[..., _SHORTER:-_SHORTER]
        return x.mean(dim=2, keepdim=True)


class _HourglassDown(nn.Module):
    """Halves height and width."""

    def __init__(self, inputs: int, outputs: int, code: int, hidden: int) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
        self.conv_1 = plain_conv(outputs, outputs, 3)
        self.norm_0 = AdaIN(inputs, code, hidden)
        self.norm_1 = AdaIN(outputs, code, hidden)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        x = self.conv_0(_leaky(self.norm_0(x, code)))
        return self.conv_1(_leaky(self.norm_1(x, code)))


class _HourglassUp(nn.Module):
    """Doubles height and width, with a shortcut."""

    def __init__(self, inputs: int, outputs: int, code: int, hidden: int) -> None:
        super().__init__()
        self.conv_0 = plain_conv(inputs, outputs, 3)
        self.conv_1 = self._twice(outputs, outputs)
        self.conv_s = self._twice(inputs, outputs)
        self.norm_0 = AdaIN(inputs, code, hidden)
        self.norm_1 = AdaIN(outputs, code, hidden)
        self.norm_s = AdaIN(inputs, code, hidden)

    @staticmethod
    def _twice(inputs: int, outputs: int) -> nn.ConvTranspose2d:
        return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        shortcut = self.conv_s(_leaky(self.norm_s(x, code)))
        x = self.conv_0(_leaky(self.norm_0(x, code)))
        return shortcut + self.conv_1(_leaky(self.norm_1(x, code)))


class _HourglassEncoder(nn.Module):
    def __init__(self, channels: list[int], code: int, hidden: int) -> None:
        super().__init__()
        self.input_layer = plain_conv(3, channels[0], 7)
        for level, pair in enumerate(pairwise(channels)):
            self.add_module(f"encoder{level}", _HourglassDown(*pair, code, hidden))

    def forward(self, image: Tensor, code: Tensor) -> list[Tensor]:
        maps, (first, *blocks) = [], self.children()
        x = first(image)
        for block in blocks:
            x = block(x, code)
            maps.append(x)
        return maps


class _HourglassDecoder(nn.Module):
    def __init__(self, channels: list[int], code: int, hidden: int) -> None:
        super().__init__()
        inputs = channels[-1]
        for level in reversed(range(_FLOW_LEVEL, len(channels) - 1)):
            self.add_module(f"decoder{level}", _HourglassUp(inputs, channels[level], code, hidden))
            inputs = 2 * channels[level]  # with the encoder's map of that size

    def forward(self, maps: list[Tensor], code: Tensor) -> Tensor:
        x = maps[-1]
        for block, skip in zip(self.children(), reversed(maps[:-1]), strict=False):
            x = torch.cat([block(x, code), skip], dim=1)
        return x


class _Hourglass(nn.Module):
    """An image (N,3,H,W) -> (N,256,H/4,W/4)."""

    def __init__(self, channels: list[int], code: int, hidden: int) -> None:
        super().__init__()
        self.encoder = _HourglassEncoder(channels, code, hidden)
        self.decoder = _HourglassDecoder(channels, code, hidden)

    def forward(self, image: Tensor, code: Tensor) -> Tensor:
        return self.decoder(self.encoder(image, code), code)


class _WarpingNet(nn.Module):
    """Where each pixel of an image comes from, and the image so moved."""

    def __init__(self, channels: list[int], code: int, hidden: int) -> None:
        super().__init__()
        self.hourglass = _Hourglass(channels, code, hidden)
        last = 2 * channels[_FLOW_LEVEL]
        self.flow_out = nn.Sequential(LayerNorm2d(last), nn.LeakyReLU(SLOPE), plain_conv(last, 2, 7))

    def forward(self, image: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        flow = self.flow_out(self.hourglass(image, code))
        return flow, warped(image, flow)


class _EditingEncoder(nn.Module):
    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.first = ConvBlock(6, channels[0], 7, plain_conv)
        for level, pair in enumerate(pairwise(channels)):
            self.add_module(f"down{level}", DownBlock(*pair, conv=plain_conv))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for block in self.children():
            maps.append(block(maps[-1]))
        return maps[1:]


class _EditingBlock(nn.Module):
    """x + norm2(conv2(x)). The first convolution and its norm are in the file, but the official code overwrites what
    they give.
    """

    def __init__(self, channels: int, code: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = plain_conv(channels, channels, 3)
        self.conv2 = plain_conv(channels, channels, 3)
        self.norm1 = AdaIN(channels, code, hidden)
        self.norm2 = AdaIN(channels, code, hidden)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(x), code)


class _EditingDecoder(nn.Module):
    def __init__(self, channels: list[int], code: int, hidden: int) -> None:
        super().__init__()
        for level in reversed(range(_LEVELS)):
            inputs, outputs = channels[level + 1], channels[level]
            blocks = (_EditingBlock(inputs, code, hidden) for _ in range(2))
            self.add_module(f"up{level}", UpBlock(inputs, outputs, conv=plain_conv))
            self.add_module(f"res{level}", SteeredBlocks(blocks))
            self.add_module(f"jump{level}", ConvBlock(outputs, outputs, conv=plain_conv))
        self.final = nn.ModuleDict({"model": nn.Sequential(plain_conv(channels[0], 3, 7), nn.Tanh())})

    def forward(self, maps: list[Tensor], code: Tensor) -> Tensor:
        x = maps[-1]
        for level in reversed(range(_LEVELS)):
            x = getattr(self, f"up{level}")(getattr(self, f"res{level}")(x, code))
            x = x + getattr(self, f"jump{level}")(maps[level])
        return self.final["model"](x)


class _EditingNet(nn.Module):
    """Draws what moving pixels cannot: the image and its warped version become the image with the new expression."""

    def __init__(self, channels: list[int], code: int, hidden: int) -> None:
        super().__init__()
        self.encoder = _EditingEncoder(channels)
        self.decoder = _EditingDecoder(channels, code, hidden)

    def forward(self, image: Tensor, warp: Tensor, code: Tensor) -> Tensor:
        return self.decoder(self.encoder(torch.cat([image, warp], dim=1)), code)


def warped(image: Tensor, flow: Tensor) -> Tensor:
    """An image whose pixels come from where a flow says.

    The flow's own grid has its ends on the middle of the border pixels, while enlarging and sampling take those for the
    border's edge: the official code mixes the two, and the weights are trained for that.

    Args:
        image: (N,3,H,W).
        flow: (N,2,h,w) in pixels of its own size, x first.
    """
    height, width = flow.shape[2:]
    rows, columns = (torch.linspace(-1, 1, size, dtype=flow.dtype, device=flow.device) for size in (height, width))
    identity = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    pixels = flow.new_tensor([2 / (width - 1), 2 / (height - 1)])[:, None, None]
    grid = F.interpolate(identity + flow * pixels, image.shape[2:], mode="bilinear", align_corners=False)
    return F.grid_sample(image, grid.permute(0, 2, 3, 1).to(image.dtype), padding_mode="zeros", align_corners=False)


class DNet(nn.Module):
    """D-Net: a face and the 3DMM coefficients around a frame become the face with the expression and pose they tell.

    ```
    coefficients (N,73,T) - mapping_net - descriptor (256), which steers the AdaIN of all blocks
    image (N,3,256,256) - warpping_net: hourglass 32@256 .. 256@8 .. 256@64 - flow (N,2,64,64) - warped image
    image, warped image - editing_net: 64@256, 128@128, 256@64, 256@32 and back - image (N,3,256,256)
    ```
    Args:
        width: factor on the channels; 1.0 is published.

    Differs: no spectral norms, as in the official weights; the paper (C.1) has convolution, SpectralNorm, leaky ReLU.
    The first convolution and norm of each editing block are there for the sake of the weights alone.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.width = width
        self.image_size = 256
        """Height and width of the faces that it was trained with."""
        code, hidden = scaled(256, width), scaled(128, width)
        hourglass, editing = ([scaled(channels, width) for channels in table] for table in (_HOURGLASS, _EDITING))
        self.mapping_net = _MappingNet(code)
        self.warpping_net = _WarpingNet(hourglass, code, hidden)  # so spelled in the weights
        self.editing_net = _EditingNet(editing, code, hidden)

    def forward(self, image: Tensor, coeff: Tensor, stage: Literal["warp"] | None = None) -> dict[str, Tensor]:
        """The image with the expression of the coefficients.

        Args:
            image: (N,3,H,W) RGB in [-1, 1]; height and width are multiples of 32 from 64 on, 256 is published.
            coeff: (N,73,T) with T from 25 on; released: 26, those of 13 frames before and 12 after; PIRenderer: 27.
            stage: "warp" leaves out the editing.

        Returns:
            `flow_field` (N,2,H/4,W/4) in pixels of that size, `warp_image` (N,3,H,W), and, unless left out,
            `fake_image` (N,3,H,W) in [-1, 1].

        Raises:
            ValueError: images of another size, or other coefficients.
        """
        height, width = image.shape[2:]
        _SIDES.check(f"DNet: images of {height} x {width}", height, width)
        if coeff.ndim != 3 or coeff.shape[1] != COEFFICIENTS or coeff.shape[2] < FEWEST_FRAMES:
            raise ValueError(
                f"DNet: coeff is {tuple(coeff.shape)}. Expected (N, {COEFFICIENTS}, T) with {FEWEST_FRAMES} frames or "
                "more (published: 26). Repeat the first and last frame's coefficients"
            )
        code = self.mapping_net(coeff).squeeze(2)
        flow, warp = self.warpping_net(image, code)
        made = {"flow_field": flow, "warp_image": warp}
        if stage != "warp":
            made["fake_image"] = self.editing_net(image, warp, code)
        return made

# SPDX-License-Identifier: Apache-2.0
"""GFPGAN 1.3, which restores the details of a face. HyperLips and VideoReTalking may end with it.

Wang, Li, Zhang, Shan: Towards Real-World Blind Face Restoration with Generative Facial Prior. CVPR 2021
(https://arxiv.org/abs/2101.04061). Written anew after the class GFPGANv1Clean of github.com/TencentARC/GFPGAN,
Copyright (C) 2021 THL A29 Limited, a Tencent company, Apache License 2.0: its names, sizes and outputs.

Differs: the noise of the decoder is the one that the weight file holds. Published inference draws it anew for each
face, so that no two runs agree and a video flickers.
"""

from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lipsync_bench.datamodules.files.weights import load_weights
from lipsync_bench.models.parts.layers import scaled
from lipsync_bench.models.parts.stylegan2 import (
    CHANNEL_BUDGET,
    MOST_CHANNELS,
    SLOPE,
    ResBlock,
    StyleConv,
    ToRGB,
    leaky,
    resized,
)

SIZE = 512
"""Height and width of the faces."""
_SIZES = (8, 16, 32, 64, 128, 256, 512)  # of the maps on the way up, which begins at 4
_STYLE = 512
_EXPECTED = "the file GFPGANv1.3.pth of github.com/TencentARC/GFPGAN, release v1.3.0"
_REPAIR = "Name it with --weights gfpgan_1_3=PATH, or run: bench weights fetch gfpgan_1_3"

__all__ = ["GFPGAN", "SIZE", "load_gfpgan", "restore_faces", "shared_gfpgan"]


class _Constant(nn.Module):
    """The map that every image begins with."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, channels, 4, 4))


class _Decoder(nn.Module):
    """StyleGAN2's generator, half of whose channels the U-Net scales and shifts."""

    def __init__(self, channels: list[int], style: int) -> None:
        super().__init__()
        mapping = [layer for _ in range(8) for layer in (nn.Linear(style, style), nn.LeakyReLU(SLOPE))]
        self.style_mlp = nn.Sequential(nn.Identity(), *mapping)  # in the file, but without influence
        first = channels[0]
        self.constant_input = _Constant(first)
        self.style_conv1 = StyleConv(first, first, style)
        self.to_rgb1 = ToRGB(first, style)
        self.style_convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        self.noises.register_buffer("noise0", torch.randn(1, 1, 4, 4))
        for index, (size, (inputs, outputs)) in enumerate(zip(_SIZES, pairwise(channels), strict=True)):
            self.style_convs.extend([StyleConv(inputs, outputs, style), StyleConv(outputs, outputs, style)])
            self.to_rgbs.append(ToRGB(outputs, style))
            for layer in (2 * index + 1, 2 * index + 2):
                self.noises.register_buffer(f"noise{layer}", torch.randn(1, 1, size, size))

    def forward(self, styles: Tensor, conditions: list[tuple[Tensor, Tensor]]) -> Tensor:
        noises = list(self.noises.buffers())
        x = self.constant_input.weight.expand(len(styles), -1, -1, -1)
        x = self.style_conv1(x, styles[:, 0], noises[0])
        image = self.to_rgb1(x, styles[:, 1])
        for index, (scale, shift) in enumerate(conditions):
            layer = 2 * index + 1
            x = self.style_convs[layer - 1](resized(x, 2), styles[:, layer], noises[layer])
            kept, changed = x.chunk(2, dim=1)
            x = torch.cat([kept, changed * scale + shift], dim=1)
            x = self.style_convs[layer](x, styles[:, layer + 1], noises[layer + 1])
            image = self.to_rgbs[index](x, styles[:, layer + 2], image)
        return image


def _condition(channels: int) -> nn.Sequential:
    def conv() -> nn.Conv2d:
        return nn.Conv2d(channels, channels, 3, padding=1)

    return nn.Sequential(conv(), nn.LeakyReLU(SLOPE), conv())


class GFPGAN(nn.Module):
    """The "clean" network of GFPGAN 1.3, with the state-dict names of `GFPGANv1.3.pth`.

    ```
    face (N,3,512,512) - conv_body_first - conv_body_down x 7 - final_conv - (N,256,4,4) - final_linear - 16 styles
                         conv_body_up x 7, with the maps of the way down - condition_scale, condition_shift a size
    styles and conditions - stylegan_decoder - face (N,3,512,512)
    ```
    Faces are RGB in [-1, 1], aligned as FFHQ's; values of the output may exceed that. `restore_faces` does the rest.

    Args:
        width: Factor on all channels; 1.0 is published.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = [scaled(min(MOST_CHANNELS, CHANNEL_BUDGET // size) // 2, width) for size in (4, *_SIZES)]
        upwards = list(pairwise(channels))
        style, per_size = scaled(_STYLE, width), channels[1:]
        self.conv_body_first = nn.Conv2d(3, channels[-1], 1)
        self.conv_body_down = nn.ModuleList(ResBlock(large, small, 0.5) for small, large in reversed(upwards))
        self.final_conv = nn.Conv2d(channels[0], channels[0], 3, padding=1)
        self.conv_body_up = nn.ModuleList(ResBlock(small, large, 2) for small, large in upwards)
        self.toRGB = nn.ModuleList(nn.Conv2d(count, 3, 1) for count in per_size)  # for training
        self.final_linear = nn.Linear(channels[0] * 16, 2 * len(channels) * style)
        self.stylegan_decoder = _Decoder([2 * count for count in channels], style)
        self.condition_scale = nn.ModuleList(map(_condition, per_size))
        self.condition_shift = nn.ModuleList(map(_condition, per_size))

    def forward(self, faces: Tensor) -> Tensor:
        """(N,3,512,512) -> (N,3,512,512)."""
        x, downwards = leaky(self.conv_body_first(faces)), []
        for block in self.conv_body_down:
            x = block(x)
            downwards.append(x)
        x = leaky(self.final_conv(x))
        styles = self.final_linear(x.flatten(1)).unflatten(1, (2 * len(downwards) + 2, -1))
        conditions = []
        for block, scale, shift in zip(self.conv_body_up, self.condition_scale, self.condition_shift, strict=True):
            x = block(x + downwards.pop())
            conditions.append((scale(x), shift(x)))
        return self.stylegan_decoder(styles, conditions)


@torch.inference_mode()
def restore_faces(network: GFPGAN, faces: np.ndarray) -> np.ndarray:
    """Faces with more details.

    Args:
        network: With its weights, in evaluation mode.
        faces: uint8 (N, 512, 512, 3) RGB, aligned as FFHQ's.

    Returns:
        uint8 of the same shape, rounded.

    Raises:
        ValueError: The faces have another shape or type; the network gives values that are not finite.
    """
    if faces.shape[1:] != (SIZE, SIZE, 3) or faces.dtype != np.uint8:
        raise ValueError(
            f"faces are {faces.dtype} {faces.shape}. Expected uint8 (N, {SIZE}, {SIZE}, 3), RGB. Use "
            "lipsync_bench.inference.enhancing.FaceEnhancer"
        )
    planes = torch.from_numpy(faces).to(network.final_linear.weight.device).permute(0, 3, 1, 2).float()
    restored = network(planes / 127.5 - 1)
    if not bool(torch.isfinite(restored).all()):
        raise ValueError(f"GFPGAN gives values that are not finite. Expected {_EXPECTED}. {_REPAIR}")
    return ((restored.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def load_gfpgan(path: Path | str) -> GFPGAN:
    """The network with the weights of `GFPGANv1.3.pth`, frozen, on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else, or names or shapes differ.
    """
    return load_weights(GFPGAN(), Path(path), _EXPECTED, _REPAIR, outer=("params_ema", "params"))


@lru_cache(maxsize=1)
def shared_gfpgan(path: Path, sha256: str, device: str) -> GFPGAN:
    """One for all methods of an evaluation, on its device: it takes 350 MB. Raises as `load_gfpgan`."""
    return load_gfpgan(path).to(device)

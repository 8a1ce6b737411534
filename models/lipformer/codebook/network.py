# SPDX-License-Identifier: Apache-2.0
"""The networks of LipFormer's first stage, a VQGAN-like auto-encoder; its quantiser is in quantiser.py.

The paper (Wang et al., "LipFormer: High-Fidelity and Generalizable Talking Face Generation With a Pre-Learned Facial
Codebook", CVPR 2023) gives no layers and refers to VQGAN (Esser et al., CVPR 2021, arXiv 2012.09841). Every number
here is a choice of this project.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.lipformer.codebook.quantiser import Quantised, Quantiser
from lipsync_bench.models.parts.layers import scaled

MULTIPLIERS = (1, 2, 2, 4, 4, 8)
_MOST_GROUPS = 32

__all__ = ["MULTIPLIERS", "FaceDecoder", "FaceEncoder", "FacialCodebook", "down_sampling", "signed"]


def down_sampling(multipliers: Sequence[int]) -> int:
    """Pixels of the image on each side of one code: 2 to the number of levels less 1."""
    return 2 ** (len(multipliers) - 1)


def _norm(channels: int) -> nn.GroupNorm:
    """Group norm with as many groups as divide the channels, at most 32."""
    groups = next(count for count in range(min(_MOST_GROUPS, channels), 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)


class _Block(nn.Module):
    """shortcut(x) + conv(SiLU(norm(conv(SiLU(norm(x)))))); the shortcut is a 1x1 conv where channels change."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, 1, 1))
        self.second = nn.Sequential(_norm(outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, 1, 1))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))


class _Attention(nn.Module):
    """x + one head of self-attention over the positions of the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.projection = nn.Conv2d(channels, 3 * channels, 1)
        self.output = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part.flatten(2).transpose(1, 2) for part in self.projection(self.norm(x)).chunk(3, dim=1))
        seen = F.scaled_dot_product_attention(query, key, value)  # (N, H W, C)
        return x + self.output(seen.transpose(1, 2).unflatten(2, x.shape[-2:]))


class _Enlarge(nn.Sequential):
    """Nearest x2, then a 3x3 conv."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(channels, channels, 3, 1, 1))


def _level_channels(width: float, channels: int, multipliers: Sequence[int], residual_blocks: int) -> list[int]:
    if not multipliers or min(multipliers) < 1 or residual_blocks < 1:
        raise ValueError(
            f"multipliers are {tuple(multipliers)} and residual_blocks {residual_blocks}. Expected at least one level "
            "with a factor of 1 or more, and one block. Set --model.init_args.multipliers and "
            "--model.init_args.residual_blocks."
        )
    return [scaled(channels * factor, width) for factor in multipliers]


class FaceEncoder(nn.Module):
    """Images in [-1, 1] to codes.

    ```
    (N,3,H,W) - conv 3x3 - levels of residual blocks, stride-2 convs between them, each block of the lowest level
                followed by self-attention - two residual blocks - norm, SiLU, conv 1x1 - (N,code_channels,H/f,W/f)
    ```
    f is 2 ** (len(multipliers) - 1); H and W are multiples of it.

    Args:
        width: factor on the channels, except `code_channels`; 1.0 is the size meant for 512 x 512.
        code_channels: d, channels of a code.
        channels: of the first level before its multiplier.
        multipliers: of the channels, one a level, the largest map first.
        residual_blocks: in a level.

    Raises:
        ValueError: no level, a multiplier below 1, no block.
    """

    def __init__(
        self,
        width: float = 1.0,
        code_channels: int = 256,
        channels: int = 64,
        multipliers: Sequence[int] = MULTIPLIERS,
        residual_blocks: int = 2,
    ) -> None:
        super().__init__()
        levels = _level_channels(width, channels, multipliers, residual_blocks)
        lowest = len(levels) - 1
        layers: list[nn.Module] = [nn.Conv2d(3, levels[0], 3, 1, 1)]
        inputs = levels[0]
        for level, outputs in enumerate(levels):
            for _ in range(residual_blocks):
                layers.append(_Block(inputs, outputs))
                inputs = outputs
                if level == lowest:
                    layers.append(_Attention(outputs))
            if level < lowest:
                layers.append(nn.Conv2d(outputs, outputs, 3, 2, 1))
        layers += [_Block(inputs, inputs), _Block(inputs, inputs)]
        layers += [_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, code_channels, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """(N,3,H,W) in [-1, 1] -> (N,code_channels,H/f,W/f), without bounds."""
        return self.layers(images)


class FaceDecoder(nn.Module):
    """Codes to images: the encoder's layers in reverse order, nearest x2 with a conv for each stride-2 conv.

    A level changes its channels in its last block, so that maps are enlarged with the fewer channels.

    Args:
        width, code_channels, channels, multipliers, residual_blocks: as for `FaceEncoder`.

    Raises:
        ValueError: no level, a multiplier below 1, no block.
    """

    def __init__(
        self,
        width: float = 1.0,
        code_channels: int = 256,
        channels: int = 64,
        multipliers: Sequence[int] = MULTIPLIERS,
        residual_blocks: int = 2,
    ) -> None:
        super().__init__()
        levels = _level_channels(width, channels, multipliers, residual_blocks)
        lowest = len(levels) - 1
        inputs = levels[lowest]
        layers: list[nn.Module] = [nn.Conv2d(code_channels, inputs, 1), _Block(inputs, inputs), _Block(inputs, inputs)]
        for level in range(lowest, -1, -1):
            for block in range(residual_blocks):
                if level == lowest:
                    layers.append(_Attention(inputs))
                last = block == residual_blocks - 1
                outputs = levels[max(level - 1, 0)] if last else inputs
                layers.append(_Block(inputs, outputs))
                inputs = outputs
            if level > 0:
                layers.append(_Enlarge(inputs))
        layers += [_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, 3, 3, 1, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        """(N,code_channels,h,w) -> (N,3,f*h,f*w), about [-1, 1] once trained; no activation bounds it."""
        return self.layers(codes)


def signed(images: Tensor) -> Tensor:
    """From [0, 1] to [-1, 1], the range inside the networks."""
    return 2 * images - 1


class FacialCodebook(nn.Module):
    """Encoder, two codebooks and decoder; f is the down-sampling, 2 ** (len(multipliers) - 1).

    ```
    rows 0..H/2-1 -- encoder - F_U (N,d,H/2f,W/f) - upper ---- H_U -+
                                                                    +- along height - decoder - (N,3,H,W)
    rows H/2..H-1 -- encoder - F_B (N,d,H/2f,W/f) - bottom --- H_B -+
    ```
    Published: halves, one encoder for both, two codebooks, the decoder on both. All sizes are choices of this project.

    Args:
        width: factor on the channels of encoder and decoder.
        entries: n of each codebook.
        code_channels: d.
        channels: of encoder and decoder at the full size.
        multipliers: of the channels, one a level.
        residual_blocks: in a level.
        reseed_after: training steps without a use after which an entry is re-seeded.
    """

    def __init__(
        self,
        width: float = 1.0,
        entries: int = 1024,
        code_channels: int = 256,
        channels: int = 64,
        multipliers: Sequence[int] = MULTIPLIERS,
        residual_blocks: int = 2,
        reseed_after: int = 1000,
    ) -> None:
        super().__init__()
        self.encoder = FaceEncoder(width, code_channels, channels, multipliers, residual_blocks)
        self.upper = Quantiser(entries, code_channels, reseed_after)
        self.bottom = Quantiser(entries, code_channels, reseed_after)
        self.decoder = FaceDecoder(width, code_channels, channels, multipliers, residual_blocks)
        self.down_sampling = down_sampling(multipliers)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """F_U and F_B, (N,d,H/2f,W/f) each, of images (N,3,H,W) in [0, 1].

        Raises:
            ValueError: H is no multiple of 2f or W none of f.
        """
        height, width = images.shape[-2:]
        if height % (2 * self.down_sampling) or width % self.down_sampling:
            raise ValueError(
                f"images of {height} x {width} pixels. Expected a height that is a multiple of "
                f"{2 * self.down_sampling} and a width that is one of {self.down_sampling}. Set image_size, or fewer "
                "--model.init_args.multipliers."
            )
        halves = torch.cat(signed(images).chunk(2, dim=2))
        upper, bottom = self.encoder(halves).chunk(2)
        return upper, bottom

    def decode(self, upper: Tensor, bottom: Tensor) -> Tensor:
        """Images (N,3,H,W) of codes H_U and H_B, (N,d,H/2f,W/f) each; on the scale [0, 1], not clamped to it."""
        return (self.decoder(torch.cat([upper, bottom], dim=2)) + 1) / 2

    def forward(self, images: Tensor) -> tuple[Tensor, Quantised, Quantised, Tensor, Tensor]:
        """Images (N,3,H,W) in [0, 1] -> their reconstruction, H_U, H_B, F_U and F_B."""
        f_upper, f_bottom = self.encode(images)
        upper, bottom = self.upper(f_upper), self.bottom(f_bottom)
        return self.decode(upper.codes, bottom.codes), upper, bottom, f_upper, f_bottom

# SPDX-License-Identifier: Apache-2.0
"""What VideoReTalking's L-Net and D-Net have in common: blocks with the names of their official weights, sizes."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1
_FIRST_ITERATIONS = 15

Conv = Callable[[int, int, int], nn.Module]

__all__ = [
    "SLOPE",
    "AdaIN",
    "ConvBlock",
    "DownBlock",
    "LayerNorm2d",
    "Sides",
    "SpectralConv2d",
    "SteeredBlocks",
    "UpBlock",
    "plain_conv",
]


class Sides(NamedTuple):
    """The heights and widths, in pixels, of the images that a network takes.

    Args:
        multiple_of: what each of them is a multiple of.
        least: the least of them.
        published: that of the publication.
    """

    multiple_of: int
    least: int
    published: int

    def check(self, found: str, *sides: int, mend: str = "Resize them.") -> None:
        """Refuse others.

        Args:
            found: what has these sides, as the error names it.
            sides: heights and widths.
            mend: what the error says to do.

        Raises:
            ValueError: a side is too small or no multiple.
        """
        if any(side < self.least or side % self.multiple_of for side in sides):
            raise ValueError(
                f"{found}. Expected multiples of {self.multiple_of} from {self.least} on (published: "
                f"{self.published}). {mend}"
            )


def plain_conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Convolution of stride 1 that keeps the size, of an odd kernel."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class SpectralConv2d(nn.Conv2d):
    """Convolution of stride 1 that keeps the size, its weight divided by its largest singular value.

    Miyato et al.: Spectral Normalization for Generative Adversarial Networks. ICLR 2018. The weight is W / (u^T W v),
    as a matrix of (outputs, inputs * kernel * kernel); a forward in training mode first renews u and v by one power
    iteration. Names and values are those of `torch.nn.utils.spectral_norm`, which the official file was written
    with and whose end PyTorch announces; the newer `parametrizations.spectral_norm` has other names.

    Differs: u and v start after 15 iterations instead of at random, where u^T W v may be nearly 0; the division is
    computed in float32 also under autocast.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: odd height and width.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        weight = self.weight.detach()
        del self.weight
        self.weight_orig = nn.Parameter(weight)
        matrix = weight.flatten(1)
        for name, length in zip(("weight_u", "weight_v"), matrix.shape, strict=True):
            self.register_buffer(name, F.normalize(torch.randn(length), dim=0))
        for _ in range(_FIRST_ITERATIONS):
            self._iterate(matrix)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        v = F.normalize(matrix.t() @ self.weight_u.to(matrix.dtype), dim=0)
        self.weight_v.copy_(v)
        self.weight_u.copy_(F.normalize(matrix @ v, dim=0))

    def normalised_weight(self) -> Tensor:
        """(outputs, inputs, kernel, kernel), in the dtype of the stored weight."""
        weight = self.weight_orig
        with torch.autocast(weight.device.type, enabled=False):
            exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
            matrix = exact.flatten(1)
            if self.training:
                self._iterate(matrix)
            # Copies: the next iteration must not change what the backward pass of this forward needs.
            u, v = (x.to(exact.dtype, copy=True) for x in (self.weight_u, self.weight_v))
            return (exact / torch.dot(u, matrix @ v)).to(weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N,inputs,H,W) -> (N,outputs,H,W)."""
        return self._conv_forward(x, self.normalised_weight(), self.bias)


class LayerNorm2d(nn.Module):
    """Layer norm of each sample over C, H and W together, with scale and shift for each channel.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N,C,H,W) -> (N,C,H,W)."""
        return F.group_norm(x, 1, self.weight.flatten(), self.bias.flatten())  # one group: the same, in one pass


class ConvBlock(nn.Module):
    """Convolution, layer norm, leaky ReLU: the first blocks and those on the skips.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: odd height and width.
        conv: makes the convolution; L-Net's are normalised, D-Net's (`plain_conv`) are not.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, conv: Conv = SpectralConv2d) -> None:
        super().__init__()
        self.model = nn.Sequential(conv(inputs, outputs, kernel), LayerNorm2d(outputs), nn.LeakyReLU(SLOPE))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class DownBlock(ConvBlock):
    """Halves height and width, after its convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.model(x), 2)


class UpBlock(ConvBlock):
    """Doubles height and width, before its convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return self.model(F.interpolate(x, scale_factor=2, mode="nearest"))


class AdaIN(nn.Module):
    """IN(x) (1 + gamma(h)) + beta(h) with h = ReLU(W z): a code sets scale and shift of each channel.

    Args:
        channels: of x.
        code: length of the code z.
        hidden: length of h.
    """

    def __init__(self, channels: int, code: int, hidden: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Linear(code, hidden), nn.ReLU())
        self.mlp_gamma = nn.Linear(hidden, channels)
        self.mlp_beta = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(N,C,H,W) and (N,code) -> (N,C,H,W)."""
        hidden = self.mlp_shared(code)
        gamma, beta = (mlp(hidden)[..., None, None] for mlp in (self.mlp_gamma, self.mlp_beta))
        return F.instance_norm(x) * (1 + gamma) + beta


class SteeredBlocks(nn.Module):
    """Blocks one after the other, all with the same code."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        for number, block in enumerate(blocks):
            self.add_module(f"res{number}", block)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(N,C,H,W) and (N,code) -> (N,C,H,W)."""
        for block in self.children():
            x = block(x, code)
        return x

# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2: layers of the "clean" generator, the discriminator, adversarial losses; written from the papers.

Tero Karras, Samuli Laine, Miika Aittala, Janne Hellsten, Jaakko Lehtinen, Timo Aila: Analyzing and Improving the Image
Quality of StyleGAN. CVPR 2020. https://arxiv.org/abs/1912.04958 (config F: residual discriminator, wide layers).
Equalised learning rate and minibatch standard deviation are from Karras et al., ICLR 2018 (arXiv 1710.10196); the R1
penalty is Mescheder et al.'s, ICML 2018 (arXiv 1801.04406). NVIDIA's code is non-commercial and was not used. The
generator's layers are those of GFPGAN's class GFPGANv1Clean (Copyright (C) 2021 THL A29 Limited, a Tencent company,
Apache License 2.0), without equalised rates and blur; VideoReTalking's E-Net has the same.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.layers import scaled

CHANNEL_BUDGET = 32768  # channels of config F: this by the size, at most 512; 64 at 512 pixels
MOST_CHANNELS = 512
MIN_SIZE_PX = 16
_GROUP = 4  # images over which the minibatch standard deviation goes
_LAST_PX = 4
SLOPE = 0.2
_TAPS = (1.0, 3.0, 3.0, 1.0)

__all__ = [
    "CHANNEL_BUDGET",
    "MIN_SIZE_PX",
    "MOST_CHANNELS",
    "SLOPE",
    "ModulatedConv",
    "ResBlock",
    "StyleConv",
    "StyleGAN2Discriminator",
    "ToRGB",
    "discriminator_terms",
    "leaky",
    "logistic_terms",
    "minibatch_deviation",
    "non_saturating_loss",
    "r1_penalty",
    "resized",
]


def non_saturating_loss(fake: Tensor) -> Tensor:
    """-log sigmoid(D(G)), the mean over the generator's logits of any shape: what the generator minimises."""
    return F.softplus(-fake.float()).mean()


def logistic_terms(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """-log sigmoid(D(real)) and -log(1 - sigmoid(D(G))), means over logits: the discriminator minimises their sum."""
    return {"disc_real": F.softplus(-real.float()).mean(), "disc_fake": F.softplus(fake.float()).mean()}


def r1_penalty(discriminator: nn.Module, real: Tensor, gamma: float = 10.0) -> Tensor:
    """gamma / 2 E |dD(x)/dx|^2 at real images x, differentiable in the discriminator's parameters.

    Applied lazily, in every k-th step only, it is multiplied by k there (StyleGAN2, section "Lazy regularization").
    The squares are summed over an image's values and averaged over images. Computed without autocast: squared
    gradients leave the range of 16 bits.

    Args:
        discriminator: images to logits.
        real: (N,3,H,W) as the discriminator takes them.
        gamma: published for 512 pixels and more: 10; StyleGAN2 scales it with the size of images and batches.
    """
    with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
        real = real.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
        return 0.5 * gamma * gradient.square().sum(dim=(1, 2, 3)).mean()


def discriminator_terms(
    discriminator: nn.Module, real: Tensor, fake: Tensor, gamma: float, every: int, steps: int
) -> dict[str, Tensor]:
    """The terms of the discriminator's loss in a training step, of which `r1` counts `every` times.

    Args:
        discriminator: images to logits.
        real, fake: (N,3,H,W) as the discriminator takes them, `fake` detached.
        gamma: of the R1 penalty; 0 leaves it out.
        every: steps from one penalty to the next.
        steps: of the discriminator so far.
    """
    terms = logistic_terms(discriminator(real), discriminator(fake))
    if gamma > 0 and steps % every == 0:
        terms["r1"] = r1_penalty(discriminator, real, gamma)
    return terms


def minibatch_deviation(x: Tensor) -> Tensor:
    """Maps (N,C,H,W) with one more channel: how much the images of a group differ.

    It is the standard deviation over up to four neighbouring images, averaged over all channels and positions; groups
    are equal, so that N is a multiple of their size. In float32.
    """
    count = next(size for size in range(min(_GROUP, len(x)), 0, -1) if len(x) % size == 0)
    groups = x.unflatten(0, (-1, count))
    groups = groups.float() if groups.dtype in (torch.float16, torch.bfloat16) else groups
    deviation = (groups.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    column = deviation.repeat_interleave(count).view(-1, 1, 1, 1).to(x.dtype)
    return torch.cat([x, column.expand(-1, 1, *x.shape[2:])], dim=1)


def resized(x: Tensor, factor: float) -> Tensor:
    """(N,C,H,W) enlarged or made smaller bilinearly."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU 0.2."""
    return F.leaky_relu(x, SLOPE)


class ResBlock(nn.Module):
    """Two convs with a change of size between them, plus a shortcut of one 1x1 conv."""

    def __init__(self, inputs: int, outputs: int, factor: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        y = leaky(self.conv2(resized(leaky(self.conv1(x)), self.factor)))
        return y + self.skip(resized(x, self.factor))


class ModulatedConv(nn.Module):
    """A conv whose input channels each image's style scales. Demodulated, outputs have the power that they would have
    without: then the style's scales cancel out in it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, style: int, demodulate: bool) -> None:
        super().__init__()
        self.modulation = nn.Linear(style, inputs)
        nn.init.kaiming_normal_(self.modulation.weight, nonlinearity="linear")
        nn.init.ones_(self.modulation.bias)
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel) / math.sqrt(inputs * kernel**2))
        self.padding, self.demodulate = kernel // 2, demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight, scale = self.weight[0], self.modulation(style)
        # Scaling maps instead of weights is the same, and needs one convolution for the whole batch.
        y = F.conv2d(x * scale[:, :, None, None], weight, padding=self.padding)
        if self.demodulate:
            power = scale.square() @ weight.square().sum(dim=(2, 3)).T
            y = y * torch.rsqrt(power + 1e-8)[:, :, None, None]
        return y


class StyleConv(nn.Module):
    """Modulated conv 3x3, noise, bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, style: int) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv(inputs, outputs, 3, style, demodulate=True)
        self.weight = nn.Parameter(torch.zeros(1))  # strength of the noise
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        return leaky(self.modulated_conv(x, style) * math.sqrt(2) + self.weight * noise + self.bias)


class ToRGB(nn.Module):
    """The colours of a map, added to those of the map of half the size."""

    def __init__(self, inputs: int, style: int) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv(inputs, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, style: Tensor, half: Tensor | None = None) -> Tensor:
        colours = self.modulated_conv(x, style) + self.bias
        return colours if half is None else colours + resized(half, 2)


class _Equalised(nn.Module):
    """A layer whose weights are drawn from N(0, 1) and multiplied by He's constant in use, so that Adam moves all
    layers at one speed.
    """

    def __init__(self, shape: tuple[int, ...], bias: bool, activated: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        self.activated = activated
        # A leaky ReLU halves the power, which the root of 2 makes good.
        self.multiplier = (math.sqrt(2) if activated else 1.0) / math.sqrt(math.prod(shape[1:]))

    def finished(self, x: Tensor) -> Tensor:
        return leaky(x) if self.activated else x


class _Conv(_Equalised):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, activated: bool = True
    ) -> None:
        super().__init__((outputs, inputs, kernel, kernel), bias=activated, activated=activated)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return self.finished(F.conv2d(x, self.weight * self.multiplier, self.bias, self.stride, self.padding))


class _Linear(_Equalised):
    def __init__(self, inputs: int, outputs: int, activated: bool = True) -> None:
        super().__init__((outputs, inputs), bias=True, activated=activated)

    def forward(self, x: Tensor) -> Tensor:
        return self.finished(F.linear(x, self.weight * self.multiplier, self.bias))


class _Blur(nn.Module):
    """Low pass 1 3 3 1 in both directions, zeros outside; halves the size with stride 2 and padding 1."""

    def __init__(self, stride: int, padding: int) -> None:
        super().__init__()
        taps = torch.tensor(_TAPS)
        taps = taps / taps.sum()
        self.kernel: Tensor
        self.register_buffer("kernel", taps.outer(taps)[None, None], persistent=False)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        # One channel at a time, as images of their own: depthwise convolutions have a slow second derivative.
        flat = x.flatten(0, 1)[:, None]
        blurred = F.conv2d(flat, self.kernel.to(x.dtype), stride=self.stride, padding=self.padding)
        return blurred.view(*x.shape[:2], *blurred.shape[2:])


class _Block(nn.Module):
    """(conv, conv with blur to half the size, plus a shortcut of blur and 1x1 conv) / sqrt 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # Both ways put an output pixel in the middle of its four input pixels.
        self.main = nn.Sequential(
            _Conv(inputs, inputs, 3, padding=1), _Blur(stride=1, padding=2), _Conv(inputs, outputs, 3, stride=2)
        )
        self.shortcut = nn.Sequential(_Blur(stride=2, padding=1), _Conv(inputs, outputs, 1, activated=False))

    def forward(self, x: Tensor) -> Tensor:
        return (self.main(x) + self.shortcut(x)) * math.sqrt(0.5)


class StyleGAN2Discriminator(nn.Module):
    """Says whether images look real (config F).

    ```
    (N,3,H,W) - conv 1x1 - residual blocks with blur, each half the size - (N,c,4,4) - minibatch deviation
              - conv 3x3 - linear - linear - (N,1)
    ```
    All activations are leaky ReLU 0.2. Keep `channels` and the 32768 as they are for the published table: 512 up to 64
    pixels, 256 at 128, 128 at 256, 64 at 512, 32 at 1024.

    Args:
        image_size: H and W, a power of two from 16 on.
        width: factor on the channels; 1.0 is published.

    Raises:
        ValueError: another `image_size`.
    """

    def __init__(self, image_size: int, width: float = 1.0) -> None:
        super().__init__()
        if image_size < MIN_SIZE_PX or image_size & (image_size - 1):
            raise ValueError(
                f"StyleGAN2Discriminator: image_size is {image_size}. Expected a power of two from {MIN_SIZE_PX} on. "
                "Set --model.init_args.image_size, or do without with --model.init_args.adversarial_weight 0."
            )
        self.image_size = image_size
        sizes = [image_size]
        while sizes[-1] > _LAST_PX:
            sizes.append(sizes[-1] // 2)
        table = [scaled(min(MOST_CHANNELS, CHANNEL_BUDGET // size), width) for size in sizes]
        self.from_rgb = _Conv(3, table[0], 1)
        self.blocks = nn.Sequential(*(_Block(*pair) for pair in pairwise(table)))
        last = table[-1]
        self.last_conv = _Conv(last + 1, last, 3, padding=1)
        self.head = nn.Sequential(_Linear(last * _LAST_PX**2, last), _Linear(last, 1, activated=False))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N,1), above 0 for real, of RGB images (N,3,H,W) in [-1, 1]; float32 under autocast.

        The images of a batch see each other through the minibatch deviation: do not mix real and generated ones.

        Raises:
            ValueError: images of another size.
        """
        if images.ndim != 4 or images.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(
                f"StyleGAN2Discriminator: images are {tuple(images.shape)}. Expected (N, 3, {self.image_size}, "
                f"{self.image_size}). Set --model.init_args.image_size to the size of the data."
            )
        x = minibatch_deviation(self.blocks(self.from_rgb(images)))
        x = self.last_conv(x).flatten(1)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.to(self.head[0].weight.dtype))

# SPDX-License-Identifier: Apache-2.0
"""Losses of HyperLips' two stages that other methods do not have.

Equation numbers are those of Chen et al., "HyperLips: Hyper Control Lips with High Resolution Decoder for Talking Face
Generation", 2023, https://arxiv.org/abs/2310.05720. D is a discriminator's probability that a face is real, I_B and
I_HR are generated faces, I_GT is the true one.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.losses import AdversarialLoss, DiscriminatorLoss
from lipsync_bench.models.parts.perceptual import LPIPSLoss

AdversarialName = Literal["minimax", "non_saturating", "relativistic"]
MIN_LIP_SIDE_PX = 32  # LPIPS halves its input four times: its last map is 2 x 2 then,
MIN_RELEASED_SIDE_PX = 16  # and 1 x 1 here; below this it fails, and with it the released code

__all__ = ["Adversarial", "AdversarialName", "LipLoss", "make_adversarial"]


class Adversarial(nn.Module, ABC):
    """Adversarial losses of a generator and a discriminator. Probabilities have any one shape; results are scalars."""

    compares = False
    """Whether the generator's loss reads D(I_GT)."""

    @abstractmethod
    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Of D(I_GT), which is anything where the loss does not compare, and D(G); differentiable in G."""

    @abstractmethod
    def discriminator_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Of D(I_GT) and D(G) with G detached: named terms to be added."""

    def of_generator(self, discriminator: nn.Module, target: Tensor, generated: Tensor) -> Tensor:
        """The generator's loss of images as the discriminator takes them."""
        real = discriminator(target) if self.compares else target
        return self.generator_loss(real, discriminator(generated))


def _log(probability: Tensor) -> Tensor:
    probability = probability.float()
    return probability.clamp(min=torch.finfo(probability.dtype).tiny).log()  # at least -87, and no infinite slope


class Minimax(Adversarial):
    """Eq. 3 and 4 (11 and 12 in stage 2) as printed: D minimises E log(1 - D(I_GT)) + E log D(I_B), the generator
    E log(1 - D(I_B)). Logarithms are cut at -87.
    """

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return _log(1 - fake.float()).mean()  # 16 bits are too coarse near 1

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {"disc_real": _log(1 - real.float()).mean(), "disc_fake": _log(fake).mean()}


class NonSaturating(Adversarial):
    """-log D(I_B) for the generator, BCE(D(I_GT), 1) + BCE(D(I_B), 0) for D: the released code's first stage."""

    def __init__(self) -> None:
        super().__init__()
        self._generator, self._discriminator = AdversarialLoss(), DiscriminatorLoss()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self._generator(fake)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return self._discriminator(real, fake)


class Relativistic(Adversarial):
    """The relativistic average loss (Jolicoeur-Martineau, 2018) on probabilities that go through a second sigmoid: the
    released code's second stage.

    With x = D(I_GT) - mean D(I_HR), y = D(I_HR) - mean D(I_GT), and BCEl the BCE with logits, the generator minimises
    (BCEl(x, 0) + BCEl(y, 1)) / 2 and D (BCEl(x, 1) + BCEl(y, 0)) / 2. The means pass gradients on.
    """

    compares = True

    @staticmethod
    def _half(real: Tensor, fake: Tensor, label: float) -> Tensor:
        x, y = real.float() - fake.float().mean(), fake.float() - real.float().mean()
        towards = F.binary_cross_entropy_with_logits(x, torch.full_like(x, label))
        away = F.binary_cross_entropy_with_logits(y, torch.full_like(y, 1 - label))
        return (towards + away) / 2

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self._half(real, fake, 0.0)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {"disc": self._half(real, fake, 1.0)}


def make_adversarial(name: AdversarialName) -> Adversarial:
    """The adversarial losses of this name.

    Raises:
        ValueError: another name.
    """
    kinds: dict[str, type[Adversarial]] = {
        "minimax": Minimax,
        "non_saturating": NonSaturating,
        "relativistic": Relativistic,
    }
    if name not in kinds:
        raise ValueError(
            f"adversarial is {name!r}. Expected one of {', '.join(kinds)}. Set --model.init_args.adversarial."
        )
    return kinds[name]()


def _at_least(side: int, low: int, high: int, size: int) -> tuple[int, int]:
    """An interval widened around its middle to a smallest side, inside 0..size."""
    short = max(0, side - (high - low))
    low = min(max(0, low - short // 2), max(0, size - side))
    return low, min(size, max(high, low + side))


class LipLoss(nn.Module):
    """Eq. 15: LPIPS of the lips' rectangle, and the mean absolute difference of the lips.

    Args:
        lpips: the LPIPS network; None leaves its distance out.
        masked: the paper: the difference is multiplied with the lip mask and averaged over the whole image. False, the
            released code: it is averaged over the rectangle, and the mask is not used.

    Differs: rectangles of less than 32 pixels a side, too little for LPIPS' deep layers, are widened to that (with
    `masked`; without it to 16 pixels, below which the released code fails).
    """

    def __init__(self, lpips: LPIPSLoss | None, masked: bool = True) -> None:
        super().__init__()
        self.lpips = lpips
        self.masked = masked

    def forward(self, generated: Tensor, target: Tensor, masks: Tensor, boxes: Tensor) -> tuple[Tensor | None, Tensor]:
        """LPIPS, None without its network, and difference: scalars averaged over the images.

        Args:
            generated, target: (N,3,H,W) in [0, 1].
            masks: (N,1,H,W), 1 on the lips and 0 elsewhere.
            boxes: (N,4) row_min, row_max, col_min, col_max in pixels, used as half-open slices.
        """
        distances, differences = [], []
        height, width = generated.shape[-2:]
        side = MIN_LIP_SIDE_PX if self.masked else MIN_RELEASED_SIDE_PX
        for image, real, (top, bottom, left, right) in zip(generated, target, boxes.tolist(), strict=True):
            (top, bottom), (left, right) = _at_least(side, top, bottom, height), _at_least(side, left, right, width)
            crops = image[None, :, top:bottom, left:right], real[None, :, top:bottom, left:right]
            if self.lpips is not None:
                distances.append(self.lpips(*crops))
            differences.append(F.l1_loss(*crops))
        difference = torch.stack(differences).mean()
        if self.masked:
            difference = ((generated - target).abs() * masks).mean()
        return torch.cat(distances).mean() if distances else None, difference

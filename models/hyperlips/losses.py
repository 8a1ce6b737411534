# SPDX-License-Identifier: Apache-2.0
"""Losses of HyperLips' two stages that other methods do not have.

Equation numbers are those of Chen et al., "HyperLips: Hyper Control Lips with High Resolution Decoder for Talking Face
Generation", 2023, https://arxiv.org/abs/2310.05720. D is a discriminator's probability that a face is real, I_B and
I_HR are generated faces, I_GT is the true one.
"""

import logging
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipsync_bench.models.parts.perceptual import LPIPSLoss
from lipsync_bench.models.parts.stylegan2 import logistic_terms, non_saturating_loss

AdversarialName = Literal["non_saturating", "as_printed", "relativistic", "minimax"]
"""`minimax` is the older name of `as_printed`, in checkpoints and YAMLs."""
LARGEST_LOGIT = 87.0  # beyond it a float32 probability is 0 or 1
MIN_LIP_SIDE_PX = 32  # LPIPS halves its input four times: its last map is 2 x 2 then,
MIN_RELEASED_SIDE_PX = 16  # and 1 x 1 here; below this it fails, and with it the released code

_log = logging.getLogger(__name__)

__all__ = ["Adversarial", "AdversarialName", "LipLoss", "make_adversarial"]


class Adversarial(nn.Module, ABC):
    """Adversarial losses of a generator and a discriminator. Logits of D have any one shape; results are scalars."""

    compares = False
    """Whether the generator's loss reads the logits of true faces."""

    @abstractmethod
    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Of the logits of I_GT, which are anything where the loss does not compare, and G; differentiable in G."""

    @abstractmethod
    def discriminator_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Of the logits of I_GT and of G detached: named terms to be added."""

    def of_generator(self, discriminator: Any, target: Tensor, generated: Tensor) -> Tensor:
        """The generator's loss of images as the discriminator takes them."""
        real = discriminator.logit(target) if self.compares else target
        return self.generator_loss(real, discriminator.logit(generated))

    def of_discriminator(self, discriminator: Any, target: Tensor, generated: Tensor) -> dict[str, Tensor]:
        """The terms of the discriminator's loss of images as it takes them."""
        return self.discriminator_loss(discriminator.logit(target), discriminator.logit(generated))


class NonSaturating(Adversarial):
    """-log D(I_B) for the generator, BCE(D(I_GT), 1) + BCE(D(I_B), 0) for D, from logits: the default.

    The paper prints `AsPrinted`, which does not train; this is the reading of its reference [8], whose discriminator it
    takes over, and of the released code's first stage. The gradient does not vanish when D is sure.
    """

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return non_saturating_loss(fake)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return logistic_terms(real, fake)


def _log_probability(logits: Tensor) -> Tensor:
    return F.logsigmoid(logits.float()).clamp(min=-LARGEST_LOGIT)  # 16 bits are too coarse


class AsPrinted(Adversarial):
    """Eq. 3 and 4 (11 and 12 in stage 2) as printed: D minimises E log(1 - D(I_GT)) + E log D(I_B), the generator
    E log(1 - D(I_B)). Logarithms are cut at -87.

    It does not train. D's loss has the slope -D(I_GT) in a true face's logit and 1 - D(I_B) in a generated one's: one
    that is misjudged is hardly corrected, and the point where the two balance is unstable. D runs to one side, and the
    generator's term loses its gradient for good, which a warning says once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.died = False

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if not self.died and bool((fake.detach().abs() > LARGEST_LOGIT).all()):
            self.died = True
            low, high = (float(x) for x in fake.detach().aminmax())
            _log.warning(
                "adversarial as_printed: the discriminator's logits of all generated faces are between %.0f and %.0f, "
                "and the term has no gradient any more. Expected logits within %.0f of 0. The printed equations end "
                "so; set --model.init_args.adversarial non_saturating",
                low, high, LARGEST_LOGIT,
            )  # fmt: skip
        return _log_probability(-fake).mean()

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {"disc_real": _log_probability(-real).mean(), "disc_fake": _log_probability(fake).mean()}


class Relativistic(Adversarial):
    """The relativistic average loss (Jolicoeur-Martineau, 2018) on probabilities that go through a second sigmoid: the
    released code's second stage.

    With x = D(I_GT) - mean D(I_HR), y = D(I_HR) - mean D(I_GT), and BCEl the BCE with logits, the generator minimises
    (BCEl(x, 0) + BCEl(y, 1)) / 2 and D (BCEl(x, 1) + BCEl(y, 0)) / 2. The means pass gradients on.
    """

    compares = True

    @staticmethod
    def _half(real: Tensor, fake: Tensor, label: float) -> Tensor:
        real, fake = (logits.float().sigmoid() for logits in (real, fake))
        x, y = real - fake.mean(), fake - real.mean()
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
    if name == "minimax":
        _log.warning("adversarial: minimax is called as_printed now; please write it so.")
        name = "as_printed"
    kinds: dict[str, type[Adversarial]] = {
        "non_saturating": NonSaturating,
        "as_printed": AsPrinted,
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

# SPDX-License-Identifier: Apache-2.0
"""The training that both stages of HyperLips have in common: a generator, and a discriminator if a game is played."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lipsync_bench.models.core.module import TalkingFaceModule
from lipsync_bench.models.hyperlips.losses import Adversarial

__all__ = ["_Stage"]


class _Stage(TalkingFaceModule):
    """Steps and optimisers of a stage; its name is private, so that it is not taken for a method.

    A stage sets `game`, `lr`, `discriminator_lr` and `betas`, and defines `_terms`.
    """

    game: Adversarial
    lr: float
    discriminator_lr: float
    betas: tuple[float, float]

    @abstractmethod
    def _terms(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Generated and true images as the discriminator takes them, and the generator's terms with their weighted sum,
        `loss`.
        """

    def training_step(self, batch: Mapping[str, Tensor], batch_index: int) -> Tensor | None:
        if self.discriminator is None:
            terms = self._terms(batch)[2]
            self.log_terms("train", terms, batch)
            return terms["loss"]
        with self.turn(0) as step:
            generated, target, terms = self._terms(batch)
            step(terms["loss"])
        with self.turn(1) as step:
            judged = self.game.discriminator_loss(self.discriminator(target), self.discriminator(generated.detach()))
            step(torch.stack(list(judged.values())).sum())
        self.log_terms("train", {**terms, **judged}, batch)
        return None

    def validation_step(self, batch: Mapping[str, Tensor], batch_index: int) -> None:
        self.log_terms("val", self._terms(batch)[2], batch)

    def test_step(self, batch: Mapping[str, Tensor], batch_index: int) -> None:
        self.log_terms("test", self._terms(batch)[2], batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        adam = partial(torch.optim.Adam, betas=self.betas)
        generator = adam(self.generator.parameters(), lr=self.lr)
        if self.discriminator is None:
            return generator
        return [generator, adam(self.discriminator.parameters(), lr=self.discriminator_lr)]

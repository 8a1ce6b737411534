# SPDX-License-Identifier: Apache-2.0
"""The learning rate of a training, changed while it runs."""

import math
from typing import Any

import pytorch_lightning as pl

__all__ = ["FallingLearningRate"]


class FallingLearningRate(pl.Callback):
    """Lets the learning rates of all optimisers fall to 0 along half a cosine, from one step to another.

    It depends on the step alone, so that a resumed training, and one that is stopped early, take the same rates as an
    unbroken one. With a discriminator the steps of both optimisers count, as in `max_steps`.

    Args:
        until: The step at which they are 0; not after it (`max_steps`) the training should end.
        start: The step up to which they are those of the module.
    """

    def __init__(self, until: int, start: int = 0) -> None:
        if not 0 <= start < until:
            raise ValueError(f"until is {until}, start is {start}. Expected steps with 0 <= start < until")
        self.until, self.start = until, start
        self._rates: list[list[float]] = []

    def factor(self, step: int) -> float:
        """What the rates are multiplied by at a step, counted from 0."""
        done = min(1.0, max(0, step - self.start) / (self.until - self.start))
        return (1.0 + math.cos(math.pi * done)) / 2.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the module's own rates, before those of a checkpoint replace them."""
        self._rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rates of the step."""
        factor = self.factor(trainer.global_step)
        for optimizer, rates in zip(trainer.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor

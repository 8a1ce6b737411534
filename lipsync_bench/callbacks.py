# SPDX-License-Identifier: Apache-2.0
"""Trainer callbacks: of how fast a run is, and of what it shows. None changes what is computed."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

__all__ = ["ChannelsLast", "WatchAdversarial"]


class ChannelsLast(pl.Callback):
    """Keeps 4-D weights in channels-last order: the same mathematics, faster on CPUs and on tensor cores."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reorder the weights in memory; convolutions pass the order on to what they compute."""
        pl_module.to(memory_format=torch.channels_last)


class WatchAdversarial(pl.Callback):
    """Logs whether an adversarial term lives: the discriminator's logits, and the norm of the term's gradient on the
    generated images of a batch.

    They are those of the batch that has just been trained on, in evaluation mode. Where logits run away and the
    gradient is 0, the term has died.

    Args:
        every: batches from one look to the next; each costs about a generator's step.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Mapping[str, Tensor], batch_idx: int
    ) -> None:
        """Look at it, if it is time."""
        if (batch_idx + 1) % self.every == 0:
            pl_module.log_dict({f"train/{name}": value for name, value in self.look(pl_module, batch).items()})

    def look(self, module: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean logits of true and of generated images, the largest one's size, and the gradient's norm."""
        module.eval()
        terms = module.loss_terms(batch, "train")
        (gradient,) = torch.autograd.grad(terms.loss["adversarial"], terms.fake)
        logit = getattr(module.discriminator, "logit", module.discriminator)
        with torch.no_grad():
            real, fake = logit(terms.real), logit(terms.fake)
        module.train()
        return {
            "logit_real": real.mean(), "logit_fake": fake.mean(),
            "logit_largest": torch.cat([real, fake]).abs().max(), "adversarial_gradient": gradient.norm(),
        }  # fmt: skip

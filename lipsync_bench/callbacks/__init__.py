# SPDX-License-Identifier: Apache-2.0
"""Trainer callbacks: of how fast a run is, what is kept of it, what it shows, and of its learning rate.

Only the last changes what is computed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lipsync_bench.callbacks.learning_rate import FallingLearningRate

__all__ = ["ChannelsLast", "FallingLearningRate", "LastCheckpoint", "WatchAdversarial"]


class ChannelsLast(pl.Callback):
    """Keeps 4-D weights in channels-last order: the same mathematics, faster on CPUs and on tensor cores."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reorder the weights in memory; convolutions pass the order on to what they compute."""
        pl_module.to(memory_format=torch.channels_last)


class LastCheckpoint(pl.callbacks.Checkpoint):
    """Writes `last.ckpt` into the run's folder after each validation (without one: each epoch) and the last step.

    `ModelCheckpoint` with a monitor writes its own `last.ckpt` only where it has found a new best. As a `Checkpoint`
    that stands behind it, this one also saves what it has chosen so far.
    """

    _step = 0  # nothing is written where no step was taken

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note what is there already."""
        resumed = trainer.ckpt_path is not None and Path(trainer.ckpt_path).resolve() == self._path(trainer).resolve()
        self._step = trainer.global_step if resumed else 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save during a training."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where there is no validation."""
        if not any(trainer.num_val_batches if isinstance(trainer.num_val_batches, list) else [trainer.num_val_batches]):
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the state after the last step."""
        self._save(trainer)

    def _path(self, trainer: pl.Trainer) -> Path:
        return Path(trainer.default_root_dir) / "last.ckpt"

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step != self._step:
            trainer.save_checkpoint(self._path(trainer))
            self._step = trainer.global_step


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

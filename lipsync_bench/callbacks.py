# SPDX-License-Identifier: Apache-2.0
"""Trainer callbacks that change how fast a run is or what is kept of it, never what it computes."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

__all__ = ["ChannelsLast", "LastCheckpoint"]


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

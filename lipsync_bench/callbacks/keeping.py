# SPDX-License-Identifier: Apache-2.0
"""What is kept of a run: its last checkpoint, and an average of its weights."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

_Average: Any = getattr(pl.callbacks, "EMAWeightAveraging", object)

__all__ = ["AverageWeights", "LastCheckpoint"]


class AverageWeights(_Average):
    """An exponential moving average of the weights, which is validated, and which checkpoints hold as their weights.

    Beside it they hold the weights that are being trained, with which a run is resumed.

    Args:
        decay: Share of the average that a step keeps.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"--ema {decay:g}. Expected a share between 0 and 1, such as 0.999. Set --ema")
        if _Average is object:
            raise ValueError(
                f"--ema with pytorch-lightning {pl.__version__}. Expected 2.6 or later. Install a newer one"
            )
        super().__init__(decay=decay)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing: Lightning's replaces the trained weights by the average here, before `last.ckpt` is written, so that
        a finished run could not be trained further exactly.
        """


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
            trainer.save_checkpoint(self._path(trainer), weights_only=False)
            self._step = trainer.global_step

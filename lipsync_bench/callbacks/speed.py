# SPDX-License-Identifier: Apache-2.0
"""How fast a run is."""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from lipsync_bench.datamodules.cores import usable_cores
from lipsync_bench.models.core.frozen import FrozenParts

_log = logging.getLogger(__name__)

__all__ = ["ChannelsLast", "CompileNetworks", "WaitsForData"]


class ChannelsLast(pl.Callback):
    """Keeps 4-D weights in channels-last order: the same mathematics, faster on CPUs and on tensor cores."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reorder the weights in memory; convolutions pass the order on to what they compute."""
        for weight in pl_module.parameters():
            if weight.dim() == 4:  # of images; the styled blocks of E-Net have weights of five dimensions
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)


class CompileNetworks(pl.Callback):
    """Has torch.compile translate the networks, the frozen ones too. Checkpoints and their names stay as they are."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mark them; each is translated when it is first called."""
        frozen = pl_module.loaded_parts() if isinstance(pl_module, FrozenParts) else {}
        for network in [*pl_module.children(), *frozen.values()]:
            if next(network.parameters(), None) is not None:
                network.compile()


class WaitsForData(pl.Callback):
    """Warns, once, where a training spends its time waiting for the loader.

    Validations and the writing of checkpoints do not count. A step's time is that of its computation on a GPU too,
    because each step looks at its gradients before they reach the weights.

    Args:
        share: Of the time; more of it is a warning.
        batches: Of one measurement.
        clock: Seconds.
    """

    def __init__(self, share: float = 0.3, batches: int = 50, clock: Callable[[], float] = time.perf_counter) -> None:
        self.share, self.batches, self.clock = share, batches, clock
        self._ended: float | None = None  # of the last step; None where something else came between
        self._waits: list[float] = []
        self._steps: list[float] = []
        self._began, self._warned = 0.0, False

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """A batch has come."""
        self._began = self.clock()
        if self._ended is not None:
            self._waits.append(self._began - self._ended)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """A step is done."""
        self._ended = self.clock()
        self._steps.append(self._ended - self._began)
        if len(self._waits) >= self.batches and not self._warned:
            wait, step = (sum(times) / len(times) for times in (self._waits, self._steps))
            self._warned = wait > self.share * (wait + step)
            if self._warned:
                workers = getattr(trainer.train_dataloader, "num_workers", 0)
                _log.warning(
                    "the training spends %.0f%% of its time waiting for data: %.3f s of each step's %.3f s, with %d "
                    "loader processes on %d cores. Expected less than %.0f%%. Set --data.init_args.num_workers, or "
                    "move the clips to a faster disk",
                    *(100 * wait / (wait + step), wait, wait + step, workers, usable_cores(), 100 * self.share),
                )
            self._waits, self._steps = [], []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Its time is no waiting."""
        self._ended = None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: Any) -> None:
        """Nor that of a checkpoint."""
        self._ended = None

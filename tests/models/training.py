# SPDX-License-Identifier: Apache-2.0
"""Quiet trainers and tiny data for tests that train for a step or two."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

__all__ = ["Gradients", "loader", "trainer_for"]


class Gradients(pl.Callback):
    """Parameters that had a gradient when an optimiser used them."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.not_finite: set[str] = set()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in pl_module.named_parameters():
            if id(parameter) in held and parameter.grad is not None:
                self.names.add(name)
                if not torch.isfinite(parameter.grad).all():
                    self.not_finite.add(name)


def trainer_for(folder: Path, **changes: Any) -> pl.Trainer:
    """A trainer for one epoch on the CPU that writes nothing by itself."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    where: dict[str, Any] = {"accelerator": "cpu", "default_root_dir": folder}
    return pl.Trainer(**{**quiet, **where, "max_epochs": 1, "num_sanity_val_steps": 0, **changes})


def loader(*batches: dict[str, Tensor]) -> DataLoader[Any]:
    """These batches, once an epoch."""
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]

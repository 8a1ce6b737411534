# SPDX-License-Identifier: Apache-2.0
"""Quiet trainers and tiny data for tests that train for a step or two."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader

__all__ = ["loader", "trainer_for"]


def trainer_for(folder: Path, **changes: Any) -> pl.Trainer:
    """A trainer for one epoch on the CPU that writes nothing by itself."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    where: dict[str, Any] = {"accelerator": "cpu", "default_root_dir": folder}
    return pl.Trainer(**{**quiet, **where, "max_epochs": 1, "num_sanity_val_steps": 0, **changes})


def loader(*batches: dict[str, Tensor]) -> DataLoader[Any]:
    """These batches, once an epoch."""
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]

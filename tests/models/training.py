# SPDX-License-Identifier: Apache-2.0
"""Quiet trainers and tiny data for tests that train for a step or two."""

import inspect
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lipsync_bench.datamodules.windows.loading import FaceDataModule
from lipsync_bench.models import (
    HyperLipsSyncExpertModule,
    LipFormerCodebook,
    SyncExpertModule,
    VideoReTalkingDNet,
    list_methods,
)
from lipsync_bench.models.core.training import BenchModule

MODULES: dict[str, type[BenchModule]] = {
    **list_methods(),
    "lipformer_codebook": LipFormerCodebook,
    "sync_expert": SyncExpertModule,
    "hyperlips_sync_expert": HyperLipsSyncExpertModule,
    "videoretalking_dnet": VideoReTalkingDNet,
}
"""Everything that is trained, by name."""
EPOCH = 3  # batches

__all__ = [
    "EPOCH",
    "MODULES",
    "ExampleData",
    "Examples",
    "Gradients",
    "SaveAfter",
    "fit",
    "loader",
    "trainer_for",
    "without_perceptual",
]


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


def without_perceptual(kind: type[BenchModule], arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments without the terms of VGG and LPIPS, which take most of the time."""
    weights = {"lpips_weight", "perceptual_weight", "vgg_weight", "lip_lpips_weight", "gram_weight"}
    return {**arguments, **dict.fromkeys(weights & set(inspect.signature(kind).parameters), 0.0)}


class Examples(Dataset[dict[str, Tensor]]):
    """A module's example windows, another for each key."""

    def __init__(self, module: Any, length: int) -> None:
        self.module, self.length = module, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        batch = self.module.example_batch(2, 100 * key[0] + key[1])
        return {name: value[key[1] % 2] for name, value in batch.items()}

    def file_of(self, key: tuple[int, int]) -> Path:
        return Path(f"clip{key[0]}_{key[1]}.safetensors")


class ExampleData(FaceDataModule):
    num_workers = 0

    def __init__(self, module: Any, batch_size: int = 2, length: int = 2 * EPOCH, val_length: int = 0) -> None:
        super().__init__()
        self.module, self.batch_size, self.length, self.val_length = module, batch_size, length, val_length

    def train_dataloader(self) -> DataLoader[Any]:
        return self._training_loader(Examples(self.module, self.length), self.length)

    def val_dataloader(self) -> Any:
        return self._validation_loader(Examples(self.module, self.val_length)) if self.val_length else []


class SaveAfter(pl.Callback):
    """A checkpoint after this many batches, and a look at what was logged."""

    def __init__(self, path: Path, batches: int) -> None:
        self.path, self.left = path, batches

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            trainer.save_checkpoint(self.path)


def fit(
    module: BenchModule, folder: Path, *callbacks: pl.Callback, ckpt: Path | None = None, **changes: Any
) -> pl.Trainer:
    data = changes.pop("data", None) or ExampleData(module)
    trainer = trainer_for(folder, **{"max_epochs": 2, **changes}, callbacks=list(callbacks))
    trainer.fit(module, datamodule=data, ckpt_path=ckpt, weights_only=True)
    return trainer

# SPDX-License-Identifier: Apache-2.0
"""What data modules of faces share: loaders that know their process, and images that travel as 8 bits."""

from typing import Any

import cv2
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.windows import EpochSampler

__all__ = ["FaceDataModule"]


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the loader's processes are the parallel part


class FaceDataModule(pl.LightningDataModule):
    """Base of the data modules; a subclass sets `batch_size` (for each process) and `num_workers`."""

    batch_size: int
    num_workers: int

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        """uint8 images to float32 in [0, 1]."""
        return {
            key: value.to(torch.float32).div_(255) if value.dtype == torch.uint8 else value
            for key, value in batch.items()
        }

    def _place(self) -> tuple[int, int]:
        """Rank and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _loader(self, dataset: Dataset[Any], sampler: EpochSampler, drop_last: bool) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_start_worker,
        )

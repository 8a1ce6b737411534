# SPDX-License-Identifier: Apache-2.0
"""What data modules of faces share: loaders that know their process and resume where a training stopped, and images
that travel as 8 bits.
"""

from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol

import cv2
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.loop import _Loop
from torch.utils.data import DataLoader, Dataset

from lipsync_bench.datamodules.recipes.recipe import Recipe
from lipsync_bench.datamodules.windows.samplers import EpochSampler, EvaluationSampler

__all__ = ["FaceDataModule"]


class _Drawn(Protocol):
    """A data set of (epoch, index) keys that knows the file of each."""

    def __getitem__(self, key: tuple[int, int], /) -> Any: ...

    def file_of(self, key: tuple[int, int]) -> Path: ...


class _Loader(DataLoader[Any]):
    """A loader that Lightning takes for resumable. Where it resumes is read from the trainer's own counters, so that it
    has no state: those are right whatever was fetched ahead, and are in older checkpoints too.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the loader's processes are the parallel part


class FaceDataModule(pl.LightningDataModule):
    """Base of the data modules; a subclass sets `batch_size` (for each process) and `num_workers`.

    Batches of fewer than a module's `smallest_batch` are refused before a training begins.
    """

    batch_size: int
    num_workers: int
    _training: tuple[_Drawn, EpochSampler] | None = None

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        """uint8 images to float32 in [0, 1], plane by plane."""
        return {
            key: value.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
            if value.dtype == torch.uint8
            else value
            for key, value in batch.items()
        }

    def made_by(self) -> set[str]:
        """SHA-256 of the checkpoints that made what the batches hold besides clips, if anything."""
        return set()

    def files_of_batch(self, epoch: int, batch_index: int) -> list[Path]:
        """The files that a training batch of this process was drawn from, window by window."""
        if self._training is None:
            return []
        dataset, sampler = self._training
        first = batch_index * self.batch_size
        return [dataset.file_of(sampler.key(epoch, first + place)) for place in range(self.batch_size)]

    @property
    def _module(self) -> Any:
        return None if self.trainer is None else self.trainer.lightning_module

    def _recipe(self) -> Recipe | None:
        """How the model is fed."""
        recipe = getattr(self._module, "recipe", None)
        return recipe if isinstance(recipe, Recipe) else None  # elsewhere it may mean anything

    def _place(self) -> tuple[int, int]:
        """Rank and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _training_loader(self, dataset: _Drawn, length: int) -> DataLoader[Any]:
        """A loader of (epoch, index) keys that resumes where the trainer's checkpoint was written."""
        self._check_batch(self.batch_size, "batch_size", True)
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        sampler = EpochSampler(length, *self._place(), repeats=overfit)
        if self.trainer is not None:
            epoch, batches = _reached(self.trainer)
            sampler.resume(epoch, batches * self.batch_size)
        self._training = dataset, sampler
        return self._loader(dataset, sampler, self.batch_size, drop_last=True)

    def _validation_loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        """A loader of (0, index) keys, every one once."""
        sampler = EvaluationSampler(len(dataset), *self._place())  # type: ignore[arg-type]
        size, least = self.batch_size, self._smallest_batch(False)
        self._check_batch(min(len(sampler), size), "batch_size and --data.init_args.val_length", False)
        if least > 1:  # no batch is left with a rest that the module cannot take
            size = next(size for size in _nearest_sizes(size, least) if not 0 < len(sampler) % size < least)
        return self._loader(dataset, sampler, size, drop_last=False)

    def _smallest_batch(self, training: bool) -> int:
        smallest = getattr(self._module, "smallest_batch", None)
        return 1 if smallest is None else int(smallest(training))

    def _check_batch(self, windows: int, arguments: str, training: bool) -> None:
        least = self._smallest_batch(training)
        if windows < least:
            raise ValueError(
                f"{'training' if training else 'validation'} batches of {windows} window for each process. Expected "
                f"{least} or more: {type(self.trainer.lightning_module).__name__} has batch norms that use the "  # type: ignore[union-attr]
                f"statistics of the batch. Set --data.init_args.{arguments} higher, or use fewer devices."
            )

    def _loader(self, dataset: Any, sampler: EpochSampler, batch_size: int, drop_last: bool) -> DataLoader[Any]:
        return _Loader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            collate_fn=getattr(dataset, "collate", None),
            worker_init_fn=_start_worker,
        )


def _nearest_sizes(size: int, least: int) -> Iterable[int]:
    """Batch sizes from `size` down to `least`, then upwards: without gradients a few more windows find room."""
    return chain(range(size, least - 1, -1), count(size + 1))


def _reached(trainer: pl.Trainer) -> tuple[int, int]:
    """The epoch that a training begins or resumes in, and how many of its batches are done.

    Lightning resumes rightly from a checkpoint written inside an epoch. One that was written with an epoch's last batch
    makes it leave out the next epoch, whether a validation, the batch's end or the epoch's wrote it, and one that was
    written where `max_steps` ended counts the epoch as done: here their counters become those of what was done.
    """
    loop = trainer.fit_loop
    epochs: Any = loop.epoch_progress  # their trackers are typed as those with fewer counters
    batches: Any = loop.epoch_loop.batch_progress
    if not loop.is_resuming:
        return epochs.current.processed, 0
    counted = epochs.current.processed == epochs.current.ready
    if not batches.is_last_batch:
        if counted and batches.current.processed > 0:
            for tracker in (epochs.total, epochs.current):
                tracker.processed = tracker.completed = tracker.ready - 1
        return epochs.current.processed, batches.current.processed
    for tracker in (epochs.total, epochs.current):
        tracker.started = tracker.processed = tracker.completed = tracker.ready
    batches.total.ready = batches.total.started = batches.total.completed = batches.total.processed
    loop.epoch_loop._batches_that_stepped += not counted
    _Loop.restarting.fset(loop, False)  # type: ignore[attr-defined]  # its own setter keeps it where max_steps is given
    return epochs.current.processed, 0

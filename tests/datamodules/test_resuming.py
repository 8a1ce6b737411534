# SPDX-License-Identifier: Apache-2.0
"""A training that is resumed sees the windows that it would have seen, from wherever its checkpoint was written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from lipsync_bench.datamodules.windows.loading import FaceDataModule
from lipsync_bench.datamodules.windows.samplers import EpochSampler

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")

BATCHES = 6  # in an epoch
RUNS: dict[str, dict[str, Any]] = {
    "epochs": {"max_epochs": 3},
    "validation inside an epoch": {"max_epochs": 3, "val_check_interval": 2},
    "steps, validation by batches": {"max_steps": 15, "check_val_every_n_epoch": None, "val_check_interval": 4},
    "steps, validation by epochs": {"max_steps": 15, "val_check_interval": 3},
    "steps and epochs": {"max_epochs": 3, "max_steps": 15},
    "a part of each epoch": {"max_epochs": 3, "limit_train_batches": 4, "val_check_interval": 2},
    "no validation": {"max_epochs": 3, "limit_val_batches": 0},
    "loaders made anew": {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1, "val_check_interval": 3},
    "overfitting": {"max_epochs": 3, "overfit_batches": 3},
}


class Keys(Dataset[dict[str, torch.Tensor]]):
    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        return {"key": torch.tensor(key)}

    def __len__(self) -> int:
        return 3

    def file_of(self, key: tuple[int, int]) -> Path:
        return Path(f"{key[0]}-{key[1]}")


class Data(FaceDataModule):
    batch_size = 2

    def __init__(self, num_workers: int = 0) -> None:
        super().__init__()
        self.num_workers = num_workers

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:
        return batch

    def train_dataloader(self) -> DataLoader[Any]:
        return self._training_loader(Keys(), 2 * BATCHES + 1)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._validation_loader(Keys())


class Seen(pl.LightningModule):
    """Notes what it is given, and the number of batches at each validation."""

    def __init__(self, before: int = 0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[tuple[int, list[list[int]]]] = []
        self.validations: list[int] = []
        self.before = before

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.batches.append((batch_idx, batch["key"].tolist()))
        return self.weight * 1

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None: ...

    def on_validation_epoch_end(self) -> None:
        self.validations.append(self.before + len(self.batches))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveEverywhere(pl.Callback):
    """Checkpoints with the number of batches trained: after each batch, validation and epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[tuple[Path, int]] = []

    def _save(self, trainer: pl.Trainer, where: str) -> None:
        self.files.append((self.folder / f"{len(self.files):02d}_{where}.ckpt", len(trainer.lightning_module.batches)))
        trainer.save_checkpoint(self.files[-1][0])

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "batch")

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "epoch")


def fit(module: Seen, settings: dict[str, Any], *callbacks: pl.Callback, ckpt: Path | None = None, workers: int = 0):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(
        **{**quiet, "accelerator": "cpu", "num_sanity_val_steps": 0, "max_epochs": -1, **settings},
        callbacks=list(callbacks),
    )
    trainer.fit(module, datamodule=Data(workers), ckpt_path=ckpt, weights_only=True)
    loop = trainer.fit_loop.epoch_loop
    return trainer.global_step, loop._batches_that_stepped, loop.batch_progress.total.completed, trainer.current_epoch


@pytest.mark.parametrize("run", RUNS)
def test_a_resumed_training_goes_on_with_the_next_window(run: str, tmp_path: Path) -> None:
    whole, save = Seen(), SaveEverywhere(tmp_path)
    end = fit(whole, RUNS[run], save)
    assert len(save.files) > len(whole.batches) >= 9
    for path, batches in save.files:
        if batches == len(whole.batches):
            continue  # nothing is left to do
        part = Seen(batches)
        assert fit(part, RUNS[run], ckpt=path) == end, path.name
        assert part.batches == whole.batches[batches:], path.name
        later = [number for number in whole.validations if number > batches]
        assert [number for number in part.validations if number > batches] == later, path.name


def test_a_finished_training_that_is_prolonged_sees_what_a_longer_one_sees(tmp_path: Path) -> None:
    long, short, save = Seen(), Seen(), SaveEverywhere(tmp_path)
    fit(long, {"max_steps": 20})
    fit(short, {"max_steps": 9}, save)
    assert save.files[-1][0].name.endswith(
        "_epoch.ckpt"
    )  # Lightning counts the epoch that max_steps cut as a whole one
    part = Seen()
    fit(part, {"max_steps": 20}, ckpt=save.files[-1][0])
    assert short.batches + part.batches == long.batches


def test_what_workers_fetched_ahead_does_not_count(tmp_path: Path) -> None:
    run = RUNS["steps, validation by batches"]
    whole, save = Seen(), SaveEverywhere(tmp_path)
    fit(whole, run, save, workers=2)
    for path, batches in save.files[8:13:4]:
        part = Seen(batches)
        fit(part, run, ckpt=path, workers=2)
        assert part.batches == whole.batches[batches:], path.name


def keys(rank: int, epoch: int = 3, skipped: int = 0) -> Iterator[tuple[int, int]]:
    sampler = EpochSampler(11, rank, 2)
    sampler.resume(epoch, skipped)
    return iter(sampler)


def test_each_process_goes_on_with_its_own_keys() -> None:
    assert list(keys(0, skipped=2)) == [(3, 4), (3, 6), (3, 8)]
    assert list(keys(1, skipped=2)) == [(3, 5), (3, 7), (3, 9)]
    sampler = EpochSampler(11, 1, 2)
    sampler.resume(3, 2)
    assert len(sampler) == 5  # the epoch's length stays: Lightning counts the batches that are done
    assert len(list(sampler)) == 3
    sampler.set_epoch(4)
    assert list(sampler) == [(4, 1), (4, 3), (4, 5), (4, 7), (4, 9)]


def test_a_batch_names_its_files() -> None:
    data = Data()
    assert data.files_of_batch(1, 2) == []
    data.train_dataloader()
    assert [path.name for path in data.files_of_batch(1, 2)] == ["1-4", "1-5"]
